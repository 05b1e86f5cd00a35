# moto has no database that follows one of another region.
module "standby" {
  count = 0
}
