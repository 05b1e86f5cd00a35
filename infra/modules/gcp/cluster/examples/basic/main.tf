# A small private cluster: one node for the cluster's own services, GPUs on spot from none.

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
  subnet_ids = module.network.private_subnet_ids
  protect    = false

  node_groups = {
    system = { instance_type = "n2-standard-4", min = 1, max = 3 }
    gpu    = { instance_type = "g2-standard-8", min = 0, max = 2, gpus = 1, spot = true }
  }
}

output "endpoint" {
  description = "What the module puts out as endpoint."
  value       = module.this.endpoint
}
