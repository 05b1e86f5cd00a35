# A whole region from the modules beside this one: what an environment has beyond it are values.
#
# Two regions meet in two rounds, since neither can name the other before it is there: each alone, then each with the
# other's output among its `neighbours`. Of two regions the one whose name sorts first asks for the peering.

locals {
  asks    = { for name, there in var.neighbours : name => there if sort([var.name, name])[0] == var.name }
  answers = { for name, there in var.neighbours : name => there if sort([var.name, name])[0] == name && contains(keys(there.peering_ids), var.name) }
  replica = try(var.neighbours[var.replicate_to], null)
  source  = try(var.neighbours[var.standby_of], null)
}

module "network" {
  source         = "../network"
  name           = var.name
  region         = var.region
  tags           = var.tags
  cidr           = var.cidr
  zones          = var.zones
  nat            = var.nat
  peers          = { for name, there in local.asks : name => { network_id = there.network_id, cidr = there.cidr, region = there.region } }
  accepted_peers = { for name, there in local.answers : name => { peering_id = there.peering_ids[var.name], cidr = there.cidr } }
}

module "cluster" {
  source             = "../cluster"
  name               = var.name
  region             = var.region
  tags               = var.tags
  network_id         = module.network.network_id
  subnet_ids         = module.network.private_subnet_ids
  kubernetes_version = var.kubernetes_version
  node_groups        = var.node_groups
  private_endpoint   = var.private_endpoint
  admin_cidrs        = var.admin_cidrs
  admin_role_arns    = var.admin_role_arns
  service_accounts   = var.service_accounts
  bucket_arns        = [module.storage.bucket_arn]
  bucket_key_arns    = [module.storage.kms_key_id]
}

module "storage" {
  source             = "../storage"
  name               = var.name
  region             = var.region
  tags               = var.tags
  retention_days     = var.retention_days
  protect            = var.protect
  replica_region     = try(local.replica.region, null)
  replica_bucket_arn = try(local.replica.bucket_arn, null)
  replica_key_arn    = try(local.replica.kms_key_id, null)
}

module "database" {
  source                     = "../database"
  name                       = var.name
  region                     = var.region
  tags                       = var.tags
  network_id                 = module.network.network_id
  subnet_ids                 = module.network.private_subnet_ids
  size                       = var.database.size
  storage_gb                 = var.database.storage_gb
  replicated                 = var.database.replicated
  protect                    = var.protect
  allowed_security_group_ids = { cluster = module.cluster.security_group_id }
}

module "standby" {
  count                      = local.source == null ? 0 : 1
  source                     = "../database"
  name                       = "${var.name}-dr"
  region                     = var.region
  tags                       = var.tags
  network_id                 = module.network.network_id
  subnet_ids                 = module.network.private_subnet_ids
  size                       = var.database.size
  storage_gb                 = var.database.storage_gb
  replica_of                 = local.source.database_arn
  protect                    = var.protect
  allowed_security_group_ids = { cluster = module.cluster.security_group_id }
}

module "registry" {
  source          = "../registry"
  name            = var.name
  region          = var.region
  tags            = var.tags
  repositories    = var.repositories
  replica_regions = var.registry_replica_regions
}

module "observability" {
  source             = "../observability"
  name               = var.name
  region             = var.region
  tags               = var.tags
  cluster_name       = module.cluster.cluster_name
  notify_emails      = var.notify_emails
  budget_usd_monthly = var.budget_usd_monthly
  anomaly_detection  = var.anomaly_detection
}
