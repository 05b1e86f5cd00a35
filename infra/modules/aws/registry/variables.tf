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

variable "repositories" {
  description = "Names of the image repositories, for example flightpath/gateway."
  type        = list(string)

  validation {
    condition     = length(var.repositories) > 0 && alltrue([for name in var.repositories : can(regex("^[a-z0-9]+([._/-][a-z0-9]+)*$", name))])
    error_message = "repositories must be one or more lower-case names, got ${jsonencode(var.repositories)}."
  }
}

variable "replica_regions" {
  description = "Regions that get a copy of every image. The setting belongs to the account's whole registry in this region: one module has it."
  type        = list(string)
  default     = []

  validation {
    condition     = !contains(var.replica_regions, var.region)
    error_message = "replica_regions must be other regions than ${var.region}."
  }
}

variable "untagged_days" {
  description = "Days after which images without a tag go."
  type        = number
  default     = 14
}

variable "kept_images" {
  description = "Images that each repository keeps."
  type        = number
  default     = 200
}
