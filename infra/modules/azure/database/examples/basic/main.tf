# A small database in a network of its own.

terraform {
  required_version = ">= 1.11"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 4.55"
    }
  }
}

variable "subscription_id" {
  description = "Subscription of Azure."
  type        = string
}

provider "azurerm" {
  subscription_id     = var.subscription_id
  storage_use_azuread = true

  features {}
}

locals {
  tags = { team = "ml-platform", environment = "test", cost-center = "research" }
}

module "network" {
  source = "../../../network"
  name   = "flightpath-example"
  region = "westeurope"
  tags   = local.tags
  zones  = ["1", "2"]
}

module "this" {
  source     = "../.."
  name       = "flightpath-example"
  region     = "westeurope"
  tags       = local.tags
  network_id = module.network.network_id
  subnet_ids = module.network.database_subnet_ids
  protect    = false
}

output "host" {
  description = "What the module puts out as host."
  value       = module.this.host
}
