# A small database in a network of its own.

terraform {
  required_version = ">= 1.11"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
  }
}

variable "project" {
  description = "Project of Google Cloud."
  type        = string
}

provider "google" {
  project = var.project
  region  = "europe-west4"
}

locals {
  tags = { team = "ml-platform", environment = "test", cost-center = "research" }
}

module "network" {
  source = "../../../network"
  name   = "flightpath-example"
  region = "europe-west4"
  tags   = local.tags
  zones  = ["europe-west4-a", "europe-west4-b"]
}

module "this" {
  source     = "../.."
  name       = "flightpath-example"
  region     = "europe-west4"
  tags       = local.tags
  network_id = module.network.network_id
  protect    = false
}

output "host" {
  description = "What the module puts out as host."
  value       = module.this.host
}
