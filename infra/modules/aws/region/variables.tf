variable "name" {
  description = "Prefix of every name, for example flightpath-us-east."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 24 lower-case letters, digits and hyphens that begin with a letter, got ${var.name}."
  }
}

variable "region" {
  description = "AWS region; the provider must be configured for the same one."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region must be a region of AWS such as us-east-1, got ${var.region}."
  }
}

variable "tags" {
  description = "Tags of every resource: team, environment and cost-center are what costs are told by."
  type        = map(string)

  validation {
    condition     = alltrue([for key in ["team", "environment", "cost-center"] : try(length(var.tags[key]) > 0, false)])
    error_message = "tags must hold team, environment and cost-center, each with a value, got ${jsonencode(var.tags)}."
  }
}

variable "cidr" {
  description = "IPv4 range of the region's network; each region has its own."
  type        = string
}

variable "zones" {
  description = "Availability zones of the region."
  type        = list(string)
}

variable "nat" {
  description = "NAT gateways: per_zone, single or none."
  type        = string
  default     = "per_zone"
}

variable "neighbours" {
  description = "The other regions by name, each as its output `neighbour` tells; empty until they are there."
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

  validation {
    condition     = alltrue([for neighbour in var.neighbours : neighbour.cidr != var.cidr])
    error_message = "neighbours must have other ranges than ${var.cidr}."
  }

  validation {
    condition     = !contains(keys(var.neighbours), var.name)
    error_message = "neighbours must not hold ${var.name} itself."
  }
}

variable "replicate_to" {
  description = "Neighbour that gets a copy of every object; null for none."
  type        = string
  default     = null
}

variable "standby_of" {
  description = "Neighbour whose database is followed here, for its recovery; null for none."
  type        = string
  default     = null
}

variable "kubernetes_version" {
  description = "Minor version of Kubernetes."
  type        = string
  default     = "1.33"
}

variable "node_groups" {
  description = "Groups of nodes by name: see the cluster module."
  type = map(object({
    instance_type = string
    min           = number
    max           = number
    gpus          = optional(number, 0)
    spot          = optional(bool, false)
    rdma          = optional(bool, false)
    labels        = optional(map(string), {})
    taints        = optional(list(object({ key = string, value = string, effect = string })), [])
  }))
}

variable "private_endpoint" {
  description = "Whether the API server is reached from inside only."
  type        = bool
  default     = true
}

variable "admin_cidrs" {
  description = "Ranges that reach the API server."
  type        = list(string)
  default     = []
}

variable "admin_role_arns" {
  description = "IAM roles that administer the cluster."
  type        = set(string)
  default     = []
}

variable "service_accounts" {
  description = "Service accounts that get a role of AWS: see the cluster module."
  type = map(object({
    namespace     = string
    name          = string
    bucket_access = optional(string, "none")
  }))
  default = {
    region  = { namespace = "flightpath", name = "flightpath-region", bucket_access = "write" }
    backup  = { namespace = "flightpath", name = "flightpath-backup", bucket_access = "write" }
    trainer = { namespace = "flightpath-training", name = "trainer", bucket_access = "write" }
    server  = { namespace = "flightpath-serving", name = "model-server", bucket_access = "read" }
  }
}

variable "database" {
  description = "The region's PostgreSQL; replicated says that a neighbour follows it."
  type = object({
    size       = optional(string, "db.m7g.large")
    storage_gb = optional(number, 100)
    replicated = optional(bool, false)
  })
  default = {}
}

variable "repositories" {
  description = "Image repositories."
  type        = list(string)
  default     = ["flightpath/gateway", "flightpath/agent", "flightpath/operator", "flightpath/trainer"]
}

variable "registry_replica_regions" {
  description = "Regions of AWS that get a copy of every image: one region of an account pushes, the others pull."
  type        = list(string)
  default     = []
}

variable "notify_emails" {
  description = "Who is told of alarms and costs."
  type        = list(string)
}

variable "budget_usd_monthly" {
  description = "What the region may cost in a month, in US dollars."
  type        = number
}

variable "anomaly_detection" {
  description = "Whether costs that leave their pattern are told."
  type        = bool
  default     = true
}

variable "retention_days" {
  description = "Days for which deleted objects can be brought back."
  type        = number
  default     = 90
}

variable "protect" {
  description = "Whether bucket and databases refuse to be deleted."
  type        = bool
  default     = true
}
