variable "name" {
  description = "Prefix of every name, for example flightpath-eu."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 24 lower-case letters, digits and hyphens that begin with a letter, got ${var.name}."
  }
}

variable "region" {
  description = "Region of Google Cloud."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region must be a region of Google Cloud such as europe-west4, got ${var.region}."
  }
}

variable "tags" {
  description = "Labels of every resource that can have some: team, environment and cost-center are what costs are told by."
  type        = map(string)

  validation {
    condition     = alltrue([for key in ["team", "environment", "cost-center"] : try(length(var.tags[key]) > 0, false)])
    error_message = "tags must hold team, environment and cost-center, each with a value, got ${jsonencode(var.tags)}."
  }

  validation {
    condition     = alltrue([for key, value in var.tags : can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))])
    error_message = "tags must be lower-case letters, digits, _ and -, as Google's labels want them, got ${jsonencode(var.tags)}."
  }
}

variable "network_id" {
  description = "The VPC network, with a connection to Google's services: `network_id` of the network module."
  type        = string
}

variable "subnet_ids" {
  description = "Part of the common interface; Cloud SQL lives in a network of Google's that is peered with ours."
  type        = list(string)
  default     = []
}

variable "size" {
  description = "Tier of Cloud SQL."
  type        = string
  default     = "db-custom-2-7680"

  validation {
    condition     = can(regex("^db-(custom-[0-9]+-[0-9]+|perf-optimized-[A-Z]-[0-9]+)$", var.size))
    error_message = "size must be a tier such as db-custom-2-7680, got ${var.size}."
  }
}

variable "storage_gb" {
  description = "Size of the disk; it grows by itself."
  type        = number
  default     = 50

  validation {
    condition     = var.storage_gb >= 10 && var.storage_gb <= 65536
    error_message = "storage_gb must be 10 to 65536, got ${var.storage_gb}."
  }
}

variable "replica_of" {
  description = "Name of the instance in another region that this one follows, read-only; null: it is a primary."
  type        = string
  default     = null
}

variable "protect" {
  description = "Whether the database must not be destroyed, by Terraform or by the console."
  type        = bool
  default     = true
}
