variable "name" {
  description = "Prefix of every name, for example flightpath-eu."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 24 lower-case letters, digits and hyphens that begin with a letter, got ${var.name}."
  }
}

variable "region" {
  description = "Region of Azure, as its command line writes it."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+[0-9]?$", var.region))
    error_message = "region must be a region of Azure such as westeurope, got ${var.region}."
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

variable "replica_region" {
  description = "Region of a second account that every blob is copied to; null: none."
  type        = string
  default     = null

  validation {
    condition     = var.replica_region == null || try(var.replica_region != var.region, false)
    error_message = "replica_region must be another region than ${var.region}."
  }
}

variable "retention_days" {
  description = "Days for which deleted and overwritten blobs can be had back."
  type        = number
  default     = 30

  validation {
    condition     = var.retention_days >= 7 && var.retention_days <= 365
    error_message = "retention_days must be 7 to 365, got ${var.retention_days}."
  }
}

variable "protect" {
  description = "Whether a lock keeps the accounts from being deleted, by Terraform or by the portal."
  type        = bool
  default     = true
}

variable "subnet_ids" {
  description = "Subnets that reach the store, with the service endpoints Microsoft.Storage and Microsoft.KeyVault."
  type        = list(string)
  default     = []
}

variable "admin_cidrs" {
  description = "Public IPv4 ranges that reach the store: where Terraform runs, unless it runs in one of the subnets."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.admin_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "admin_cidrs must be IPv4 ranges, none of them the whole internet, got ${jsonencode(var.admin_cidrs)}."
  }
}
