# A bucket with a copy in a second region.

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
  source         = "../.."
  name           = "flightpath-example"
  region         = "europe-west4"
  tags           = local.tags
  replica_region = "europe-west1"
  protect        = false
}

output "url" {
  description = "What the module puts out as url."
  value       = module.this.url
}
