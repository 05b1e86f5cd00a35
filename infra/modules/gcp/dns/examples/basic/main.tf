# One name for two gateways, by place.

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
  zone   = "models.example.com"
  record = "api"

  endpoints = {
    eu = { region = "europe-west4", target = "192.0.2.10" }
    us = { region = "us-east1", target = "192.0.2.20" }
  }
}

output "fqdn" {
  description = "What the module puts out as fqdn."
  value       = module.this.fqdn
}
