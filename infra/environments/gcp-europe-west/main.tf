# Google Cloud, europe-west4: the modules of the same interface as AWS's. Its state lies where those of the others do.

terraform {
  backend "s3" {
    key          = "flightpath/gcp-europe-west.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

locals {
  name   = "flightpath-gcp-eu"
  region = "europe-west4"
  tags   = { team = "ml-platform", environment = "production", cost-center = var.cost_center }
}

provider "google" {
  project = var.project
  region  = local.region
}

module "network" {
  source = "../../modules/gcp/network"
  name   = local.name
  region = local.region
  tags   = local.tags
  cidr   = "10.48.0.0/16"
  zones  = ["europe-west4-a", "europe-west4-b", "europe-west4-c"]
  peers  = var.peers
}

module "storage" {
  source         = "../../modules/gcp/storage"
  name           = local.name
  region         = local.region
  tags           = local.tags
  replica_region = "europe-west1"
  protect        = var.protect
}

module "database" {
  source     = "../../modules/gcp/database"
  name       = local.name
  region     = local.region
  tags       = local.tags
  network_id = module.network.network_id
  protect    = var.protect
}

module "cluster" {
  source           = "../../modules/gcp/cluster"
  name             = local.name
  region           = local.region
  tags             = local.tags
  network_id       = module.network.network_id
  subnet_ids       = module.network.private_subnet_ids
  admin_cidrs      = var.admin_cidrs
  buckets          = [module.storage.bucket]
  service_accounts = var.service_accounts
  protect          = var.protect

  node_groups = {
    system   = { instance_type = "n2-standard-8", min = 3, max = 6 }
    serving  = { instance_type = "g2-standard-8", min = 2, max = 8, gpus = 1, labels = { workload = "serving" } }
    training = { instance_type = "a2-highgpu-8g", min = 0, max = 2, gpus = 8, labels = { workload = "training" } }
    spot     = { instance_type = "a2-highgpu-1g", min = 0, max = 8, gpus = 1, spot = true, labels = { workload = "training" } }
  }
}
