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

variable "cidr" {
  description = "IPv4 range of the nodes' network; those of peered networks must not overlap."
  type        = string
  default     = "10.0.0.0/16"

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && try(tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 20, false)
    error_message = "cidr must be an IPv4 range of /16 to /20, got ${var.cidr}."
  }
}

variable "zones" {
  description = "Zones that are used. Google's subnets span the region, so they are only checked, and put out for the cluster."
  type        = list(string)

  validation {
    condition     = length(var.zones) >= 2 && length(distinct(var.zones)) == length(var.zones)
    error_message = "zones must be 2 or more different zones, got ${jsonencode(var.zones)}."
  }

  validation {
    condition     = alltrue([for zone in var.zones : startswith(zone, "${var.region}-")])
    error_message = "zones must lie in ${var.region}, got ${jsonencode(var.zones)}."
  }
}

variable "peers" {
  description = "Networks that this one peers with, by name; the other side does the same."
  type = map(object({
    network_id = string
    cidr       = string
    region     = string
  }))
  default = {}

  validation {
    condition     = alltrue([for peer in var.peers : peer.cidr != var.cidr])
    error_message = "peers must have other ranges than ${var.cidr}, got ${jsonencode(var.peers)}."
  }
}

variable "pods_cidr" {
  description = "Range of the pods; a secondary range of the nodes' subnet."
  type        = string
  default     = "10.128.0.0/14"
}

variable "services_cidr" {
  description = "Range of Kubernetes services; a secondary range as well."
  type        = string
  default     = "10.132.0.0/20"
}
