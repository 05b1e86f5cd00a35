# What belongs to no region: the name that users call. Without it the regions serve on; with it they are one service.

terraform {
  backend "s3" {
    key          = "flightpath/global.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

# Route 53 has one control plane, and it is here.
provider "aws" {
  region = "us-east-1"
}

module "dns" {
  source      = "../../modules/aws/dns"
  name        = "flightpath-global"
  region      = "us-east-1"
  tags        = { team = "ml-platform", environment = "production", cost-center = var.cost_center }
  zone        = var.zone
  create_zone = var.create_zone
  record      = var.record
  policy      = var.policy
  endpoints   = { for name, there in var.regions : name => { region = there.region, target = there.gateway, weight = there.weight } }
}
