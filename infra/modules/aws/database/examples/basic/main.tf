provider "aws" {
  region = "us-east-1"
}

module "network" {
  source = "../../../network"
  name   = "flightpath-us-east"
  region = "us-east-1"
  tags   = { team = "ml-platform", environment = "trial", cost-center = "research" }
  zones  = ["us-east-1a", "us-east-1b"]
  nat    = "none"
}

module "database" {
  source        = "../.."
  name          = "flightpath-us-east"
  region        = "us-east-1"
  tags          = { team = "ml-platform", environment = "trial", cost-center = "research" }
  network_id    = module.network.network_id
  subnet_ids    = module.network.private_subnet_ids
  allowed_cidrs = [module.network.cidr]
}

output "host" {
  description = "Address of the database."
  value       = module.database.host
}
