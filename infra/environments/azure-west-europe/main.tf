# Azure, westeurope: the modules of the same interface as AWS's. Its state lies where those of the others do.

terraform {
  backend "s3" {
    key          = "flightpath/azure-west-europe.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

locals {
  name   = "flightpath-az-eu"
  region = "westeurope"
  tags   = { team = "ml-platform", environment = "production", cost-center = var.cost_center }
}

# No keys of accounts: Terraform itself comes with an identity.
provider "azurerm" {
  subscription_id     = var.subscription_id
  storage_use_azuread = true

  features {
    key_vault {
      purge_soft_delete_on_destroy = false
    }
  }
}

module "network" {
  source = "../../modules/azure/network"
  name   = local.name
  region = local.region
  tags   = local.tags
  cidr   = "10.64.0.0/16"
  zones  = ["1", "2", "3"]
  peers  = var.peers
}

module "storage" {
  source         = "../../modules/azure/storage"
  name           = local.name
  region         = local.region
  tags           = local.tags
  replica_region = "northeurope"
  subnet_ids     = module.network.private_subnet_ids
  admin_cidrs    = var.runner_cidrs
  protect        = var.protect
}

module "database" {
  source            = "../../modules/azure/database"
  name              = local.name
  region            = local.region
  tags              = local.tags
  network_id        = module.network.network_id
  subnet_ids        = module.network.database_subnet_ids
  secret_subnet_ids = module.network.private_subnet_ids
  admin_cidrs       = var.runner_cidrs
  protect           = var.protect
}

module "cluster" {
  source           = "../../modules/azure/cluster"
  name             = local.name
  region           = local.region
  tags             = local.tags
  network_id       = module.network.network_id
  subnet_ids       = module.network.private_subnet_ids
  admin_cidrs      = var.runner_cidrs
  admin_group_ids  = var.admin_group_ids
  bucket_ids       = { artifacts = module.storage.account_id }
  service_accounts = var.service_accounts

  node_groups = {
    system   = { instance_type = "Standard_D8s_v5", min = 3, max = 6 }
    serving  = { instance_type = "Standard_NC24ads_A100_v4", min = 1, max = 4, gpus = 1, labels = { workload = "serving" } }
    training = { instance_type = "Standard_ND96asr_v4", min = 0, max = 2, gpus = 8, rdma = true, labels = { workload = "training" } }
    spot     = { instance_type = "Standard_NC24ads_A100_v4", min = 0, max = 8, gpus = 1, spot = true, labels = { workload = "training" } }
  }
}
