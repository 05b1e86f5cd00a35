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

variable "zone" {
  description = "Domain of a public managed zone, which exists, for example models.example.com."
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

variable "zone_name" {
  description = "Name of the managed zone; null: its domain with hyphens for dots."
  type        = string
  default     = null
}

variable "endpoints" {
  description = "Where the record leads, by name. Cloud DNS checks the health of IPv4 addresses only, at one path for all."
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
    condition     = alltrue([for endpoint in var.endpoints : can(cidrhost("${endpoint.target}/32", 0))])
    error_message = "endpoints must lead to IPv4 addresses, got ${jsonencode([for endpoint in var.endpoints : endpoint.target])}."
  }

  validation {
    condition     = alltrue([for endpoint in var.endpoints : endpoint.weight >= 0 && endpoint.weight <= 1000])
    error_message = "weights must be 0 to 1000, got ${jsonencode([for endpoint in var.endpoints : endpoint.weight])}."
  }

  validation {
    condition     = length(distinct([for endpoint in var.endpoints : endpoint.health_path])) == 1
    error_message = "endpoints must have one health_path, got ${jsonencode([for endpoint in var.endpoints : endpoint.health_path])}."
  }
}

variable "policy" {
  description = "latency (Cloud DNS: nearest healthy region), weighted, or failover (by weight, the highest first)."
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

variable "probe_regions" {
  description = "Three regions that the health is checked from."
  type        = list(string)
  default     = ["us-east1", "europe-west1", "asia-southeast1"]

  validation {
    condition     = length(distinct(var.probe_regions)) == 3
    error_message = "probe_regions must be three, as Cloud DNS wants, got ${jsonencode(var.probe_regions)}."
  }
}
