provider "aws" {
  region = "us-east-1"
}

module "dns" {
  source      = "../.."
  name        = "flightpath-global"
  region      = "us-east-1"
  tags        = { team = "ml-platform", environment = "trial", cost-center = "research" }
  zone        = "models.example.com"
  create_zone = true
  record      = "api"

  endpoints = {
    us-east = { region = "us-east-1", target = "gateway.us-east.example.com" }
    eu-west = { region = "eu-west-1", target = "gateway.eu-west.example.com" }
  }
}

output "fqdn" {
  description = "The name that users call."
  value       = module.dns.fqdn
}
