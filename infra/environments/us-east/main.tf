# Home of image pushes; its database is followed in eu-west.

terraform {
  backend "s3" {
    key          = "flightpath/us-east.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = "us-east-1"
}

module "region" {
  source                   = "../../modules/aws/region"
  name                     = "flightpath-us-east"
  region                   = "us-east-1"
  tags                     = { team = "ml-platform", environment = "production", cost-center = var.cost_center }
  cidr                     = "10.0.0.0/16"
  zones                    = ["us-east-1a", "us-east-1b", "us-east-1c"]
  neighbours               = var.neighbours
  replicate_to             = "flightpath-eu-west"
  database                 = { replicated = true }
  registry_replica_regions = ["eu-west-1", "ap-southeast-1"]
  admin_cidrs              = var.admin_cidrs
  admin_role_arns          = var.admin_role_arns
  notify_emails            = var.notify_emails
  protect                  = var.protect

  node_groups = {
    system   = { instance_type = "m7i.xlarge", min = 3, max = 9 }
    serving  = { instance_type = "g6.xlarge", min = 2, max = 8, gpus = 1, labels = { workload = "serving" } }
    training = { instance_type = "p4d.24xlarge", min = 0, max = 4, gpus = 8, rdma = true, labels = { workload = "training" } }
    spot     = { instance_type = "g5.12xlarge", min = 0, max = 8, gpus = 4, spot = true, labels = { workload = "training" } }
  }

  budget_usd_monthly = 60000
}
