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

variable "replica_region" {
  description = "Region to which every object is copied; null for none."
  type        = string
  default     = null

  validation {
    condition     = var.replica_region == null || var.replica_region != var.region
    error_message = "replica_region must be another region than ${var.region}."
  }
}

variable "replica_bucket_arn" {
  description = "Bucket there that gets the copies: `bucket_arn` of that region's storage module. It must be versioned."
  type        = string
  default     = null

  validation {
    condition     = (var.replica_region == null) == (var.replica_bucket_arn == null)
    error_message = "replica_bucket_arn and replica_region must be given together."
  }
}

variable "replica_key_arn" {
  description = "KMS key of that bucket: `kms_key_id` of that region's storage module."
  type        = string
  default     = null

  validation {
    condition     = (var.replica_region == null) == (var.replica_key_arn == null)
    error_message = "replica_key_arn and replica_region must be given together."
  }
}

variable "retention_days" {
  description = "Days for which overwritten and deleted objects can be brought back."
  type        = number
  default     = 90

  validation {
    condition     = var.retention_days >= 1 && floor(var.retention_days) == var.retention_days
    error_message = "retention_days must be a whole number of days from 1, got ${var.retention_days}."
  }
}

variable "protect" {
  description = "Whether the bucket refuses to be deleted, by policy and even when it is empty."
  type        = bool
  default     = true
}

variable "access_log_bucket" {
  description = "Bucket for server access logs; null for none."
  type        = string
  default     = null
}
