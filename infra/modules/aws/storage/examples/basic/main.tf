provider "aws" {
  region = "us-east-1"
}

provider "aws" {
  alias  = "eu"
  region = "eu-west-1"
}

module "copies" {
  source    = "../.."
  name      = "flightpath-eu-west"
  region    = "eu-west-1"
  tags      = { team = "ml-platform", environment = "trial", cost-center = "research" }
  providers = { aws = aws.eu }
}

module "storage" {
  source             = "../.."
  name               = "flightpath-us-east"
  region             = "us-east-1"
  tags               = { team = "ml-platform", environment = "trial", cost-center = "research" }
  replica_region     = "eu-west-1"
  replica_bucket_arn = module.copies.bucket_arn
  replica_key_arn    = module.copies.kms_key_id
}

output "url" {
  description = "Address of the artifact store."
  value       = module.storage.url
}
