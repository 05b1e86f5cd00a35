variable "cost_center" {
  description = "Who pays: the tag cost-center."
  type        = string
}

variable "notify_emails" {
  description = "Who is told of alarms and costs."
  type        = list(string)
}

variable "admin_cidrs" {
  description = "Ranges, inside the network or peered with it, that reach the API server."
  type        = list(string)
  default     = []
}

variable "admin_role_arns" {
  description = "IAM roles that administer the cluster."
  type        = set(string)
  default     = []
}

variable "neighbours" {
  description = "Outputs `neighbour` of the other regions by their name; empty in the first round."
  type = map(object({
    region       = string
    network_id   = string
    cidr         = string
    bucket_arn   = string
    kms_key_id   = string
    database_arn = string
    peering_ids  = map(string)
  }))
  default = {}
}

variable "protect" {
  description = "Whether bucket and databases refuse to be deleted; false comes before a region's destruction."
  type        = bool
  default     = true
}
