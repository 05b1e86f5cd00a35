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

variable "network_id" {
  description = "The VPC: `network_id` of the network module."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets of at least two zones."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids must be of at least two zones, got ${jsonencode(var.subnet_ids)}."
  }
}

variable "size" {
  description = "Instance class."
  type        = string
  default     = "db.m7g.large"

  validation {
    condition     = startswith(var.size, "db.")
    error_message = "size must be an instance class of RDS such as db.m7g.large, got ${var.size}."
  }
}

variable "storage_gb" {
  description = "Storage at the beginning; it grows by itself to four times as much."
  type        = number
  default     = 100

  validation {
    condition     = var.storage_gb >= 20 && var.storage_gb <= 16384
    error_message = "storage_gb must be 20 to 16384, got ${var.storage_gb}."
  }
}

variable "engine_version" {
  description = "Major version of PostgreSQL."
  type        = string
  default     = "16"

  validation {
    condition     = contains(["15", "16", "17"], var.engine_version)
    error_message = "engine_version must be 15, 16 or 17, got ${var.engine_version}."
  }
}

variable "database" {
  description = "Name of the first database."
  type        = string
  default     = "flightpath"
}

variable "replica_of" {
  description = "ARN of the database in another region that this one follows (it must be `replicated`); null for one of its own."
  type        = string
  default     = null

  validation {
    condition     = var.replica_of == null || can(regex("^arn:[a-z-]+:rds:[a-z0-9-]+:[0-9]{12}:db:.+$", var.replica_of))
    error_message = "replica_of must be the ARN of an RDS instance."
  }

  validation {
    condition     = try(split(":", var.replica_of)[3] != var.region, true)
    error_message = "replica_of must lie in another region than ${var.region}."
  }
}

variable "replicated" {
  description = "Whether databases of other regions follow this one. RDS lets none follow one whose password it manages itself, so the password is then made here, written once, and in no state."
  type        = bool
  default     = false

  validation {
    condition     = !var.replicated || var.replica_of == null
    error_message = "replicated is for a database of its own: one that follows has replica_of."
  }
}

variable "password_version" {
  description = "Of a replicated database: the next number makes a new password."
  type        = number
  default     = 1
}

variable "allowed_security_group_ids" {
  description = "Groups that may connect, by a name of the caller's: `security_group_id` of the cluster module."
  type        = map(string)
  default     = {}
}

variable "allowed_cidrs" {
  description = "Ranges that may connect: peered regions."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.allowed_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "allowed_cidrs must be IPv4 ranges, none of them the whole internet, got ${jsonencode(var.allowed_cidrs)}."
  }
}

variable "backup_days" {
  description = "Days back to which any second can be restored."
  type        = number
  default     = 14

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "backup_days must be 1 to 35, got ${var.backup_days}."
  }
}

variable "protect" {
  description = "Whether the instance refuses to be deleted, and leaves a last snapshot."
  type        = bool
  default     = true
}
