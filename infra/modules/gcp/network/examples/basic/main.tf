# A network of its own in two zones.

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

module "this" {
  source = "../.."
  name   = "flightpath-example"
  region = "europe-west4"
  tags   = local.tags
  zones  = ["europe-west4-a", "europe-west4-b"]
}

output "private_subnet_ids" {
  description = "What the module puts out as private_subnet_ids."
  value       = module.this.private_subnet_ids
}
