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

variable "zone" {
  description = "Hosted zone, for example models.example.com."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.zone))
    error_message = "zone must be a domain such as models.example.com, got ${var.zone}."
  }
}

variable "create_zone" {
  description = "Whether the zone is made here; else it must be there."
  type        = bool
  default     = false
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
  description = "Gateways by name: an address or a host name each. The one of the greatest weight is the first in a failover."
  type = map(object({
    region      = string
    target      = string
    weight      = optional(number, 100)
    health_path = optional(string, "/healthz")
  }))

  validation {
    condition     = length(var.endpoints) > 0 && alltrue([for endpoint in var.endpoints : endpoint.weight >= 0 && endpoint.weight <= 255])
    error_message = "endpoints must be one or more with weights of 0 to 255, got ${jsonencode({ for name, endpoint in var.endpoints : name => endpoint.weight })}."
  }

  validation {
    condition     = alltrue([for endpoint in var.endpoints : startswith(endpoint.health_path, "/")])
    error_message = "health_path must begin with /."
  }

  validation {
    condition     = var.policy != "failover" || length(var.endpoints) == 2
    error_message = "failover must have two endpoints, got ${length(var.endpoints)}."
  }

  validation {
    condition     = var.policy != "failover" || length(distinct([for endpoint in var.endpoints : endpoint.weight])) == length(var.endpoints)
    error_message = "failover must have endpoints of different weights, so that one of them is the first."
  }

  validation {
    condition     = var.policy != "latency" || length(distinct([for endpoint in var.endpoints : endpoint.region])) == length(var.endpoints)
    error_message = "latency must have one endpoint per region, got ${jsonencode([for endpoint in var.endpoints : endpoint.region])}."
  }

  validation {
    condition     = length(distinct([for endpoint in var.endpoints : can(regex("^[0-9.]+$", endpoint.target))])) <= 1
    error_message = "targets must be all addresses or all host names: one name has records of one type."
  }
}

variable "policy" {
  description = "latency (the nearest region), weighted, or failover (the first while it is well)."
  type        = string
  default     = "latency"

  validation {
    condition     = contains(["latency", "weighted", "failover"], var.policy)
    error_message = "policy must be latency, weighted or failover, got ${var.policy}."
  }
}

variable "health_port" {
  description = "Port on which health is asked for over HTTPS."
  type        = number
  default     = 443
}

variable "ttl_seconds" {
  description = "How long resolvers keep an answer: with the checks' 30 s, the time that a failover takes."
  type        = number
  default     = 30

  validation {
    condition     = var.ttl_seconds >= 1 && var.ttl_seconds <= 300
    error_message = "ttl_seconds must be 1 to 300, got ${var.ttl_seconds}."
  }
}
