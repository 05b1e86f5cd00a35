# A network of its own in two zones.

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

module "this" {
  source = "../.."
  name   = "flightpath-example"
  region = "westeurope"
  tags   = local.tags
  zones  = ["1", "2"]
}

output "private_subnet_ids" {
  description = "What the module puts out as private_subnet_ids."
  value       = module.this.private_subnet_ids
}
