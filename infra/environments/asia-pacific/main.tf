# Serves its users; training is smaller here.

terraform {
  backend "s3" {
    key          = "flightpath/asia-pacific.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = "ap-southeast-1"
}

module "region" {
  source       = "../../modules/aws/region"
  name         = "flightpath-asia-pacific"
  region       = "ap-southeast-1"
  tags         = { team = "ml-platform", environment = "production", cost-center = var.cost_center }
  cidr         = "10.2.0.0/16"
  zones        = ["ap-southeast-1a", "ap-southeast-1b", "ap-southeast-1c"]
  neighbours   = var.neighbours
  replicate_to = "flightpath-us-east"

  admin_cidrs     = var.admin_cidrs
  admin_role_arns = var.admin_role_arns
  notify_emails   = var.notify_emails
  protect         = var.protect

  node_groups = {
    system   = { instance_type = "m7i.xlarge", min = 3, max = 9 }
    serving  = { instance_type = "g6.xlarge", min = 2, max = 8, gpus = 1, labels = { workload = "serving" } }
    training = { instance_type = "p4d.24xlarge", min = 0, max = 2, gpus = 8, rdma = true, labels = { workload = "training" } }
    spot     = { instance_type = "g5.12xlarge", min = 0, max = 8, gpus = 4, spot = true, labels = { workload = "training" } }
  }

  budget_usd_monthly = 40000
}
