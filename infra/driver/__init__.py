"""The parts of the Terraform driver; `infra.terraform` is its front."""
