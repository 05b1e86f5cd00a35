# A small private cluster: one node for the cluster's own services, GPUs on spot from none.

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
  subnet_ids = module.network.private_subnet_ids
  zones      = ["1", "2"]

  node_groups = {
    system = { instance_type = "Standard_D4s_v5", min = 1, max = 3 }
    gpu    = { instance_type = "Standard_NC24ads_A100_v4", min = 0, max = 2, gpus = 1, spot = true }
  }
}

output "endpoint" {
  description = "What the module puts out as endpoint."
  value       = module.this.endpoint
}
