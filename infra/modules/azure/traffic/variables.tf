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

variable "zone" {
  description = "Domain of a public DNS zone of this subscription, which exists, for example models.example.com."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.zone))
    error_message = "zone must be a domain such as models.example.com, got ${var.zone}."
  }
}

variable "record" {
  description = "Name inside the zone that users call."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", var.record))
    error_message = "record must be one label of a name such as api, got ${var.record}."
  }
}

variable "endpoints" {
  description = "Where the record leads, by name. Traffic Manager checks the health at one path for all."
  type = map(object({
    region      = string
    target      = string
    weight      = optional(number, 100)
    health_path = optional(string, "/healthz")
  }))

  validation {
    condition     = length(var.endpoints) > 0
    error_message = "endpoints must not be empty."
  }

  validation {
    condition     = alltrue([for endpoint in var.endpoints : endpoint.weight >= 1 && endpoint.weight <= 1000])
    error_message = "weights must be 1 to 1000, got ${jsonencode([for endpoint in var.endpoints : endpoint.weight])}."
  }

  validation {
    condition     = length(distinct([for endpoint in var.endpoints : endpoint.health_path])) == 1
    error_message = "endpoints must have one health_path, got ${jsonencode([for endpoint in var.endpoints : endpoint.health_path])}."
  }
}

variable "policy" {
  description = "latency, weighted, or failover (by weight, the highest first)."
  type        = string
  default     = "latency"

  validation {
    condition     = contains(["latency", "weighted", "failover"], var.policy)
    error_message = "policy must be latency, weighted or failover, got ${var.policy}."
  }

  validation {
    condition     = var.policy != "failover" || length(var.endpoints) > 1
    error_message = "policy failover needs two endpoints at least, got ${length(var.endpoints)}."
  }
}

variable "ttl_seconds" {
  description = "How long resolvers keep an answer: part of the time that a failover takes."
  type        = number
  default     = 30
}
