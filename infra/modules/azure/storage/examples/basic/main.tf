# A store with a copy in a second region.

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
  source         = "../.."
  name           = "flightpath-example"
  region         = "westeurope"
  tags           = local.tags
  replica_region = "northeurope"
  protect        = false
}

output "url" {
  description = "What the module puts out as url."
  value       = module.this.url
}
