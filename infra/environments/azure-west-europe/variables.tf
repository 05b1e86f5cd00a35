variable "subscription_id" {
  description = "Subscription of Azure."
  type        = string
}

variable "runner_cidrs" {
  description = "Public ranges from which Terraform reaches vaults and store; empty where it runs inside the network."
  type        = list(string)
  default     = []
}

variable "admin_group_ids" {
  description = "Groups of Entra ID that administer the cluster."
  type        = list(string)
  default     = []
}

variable "cost_center" {
  description = "Who pays: the tag cost-center."
  type        = string
}

variable "peers" {
  description = "Networks that this one peers with, by name."
  type        = map(object({ network_id = string, cidr = string, region = string }))
  default     = {}
}

variable "service_accounts" {
  description = "Service accounts that get an identity of the cloud: the same ones as in the other regions."
  type        = map(object({ namespace = string, name = string, bucket_access = optional(string, "none") }))
  default = {
    operator = { namespace = "flightpath-system", name = "flightpath-operator" }
    agent    = { namespace = "flightpath-system", name = "flightpath-agent", bucket_access = "write" }
    trainer  = { namespace = "flightpath-training", name = "trainer", bucket_access = "write" }
    server   = { namespace = "flightpath-serving", name = "model-server", bucket_access = "read" }
  }
}

variable "protect" {
  description = "Whether store and database refuse to be deleted; false comes before a region's destruction."
  type        = bool
  default     = true
}
