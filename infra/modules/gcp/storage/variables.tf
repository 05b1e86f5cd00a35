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

variable "replica_region" {
  description = "Region of a second bucket that every object is copied to; null: none."
  type        = string
  default     = null

  validation {
    condition     = var.replica_region == null || try(var.replica_region != var.region, false)
    error_message = "replica_region must be another region than ${var.region}."
  }
}

variable "retention_days" {
  description = "Days for which deleted and overwritten objects can be had back."
  type        = number
  default     = 30

  validation {
    condition     = var.retention_days >= 7 && var.retention_days <= 90
    error_message = "retention_days must be 7 to 90, got ${var.retention_days}."
  }
}

variable "protect" {
  description = "Whether Terraform must refuse to destroy a bucket that holds objects."
  type        = bool
  default     = true
}
