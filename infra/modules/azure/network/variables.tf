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

variable "cidr" {
  description = "IPv4 range of the network; those of peered networks must not overlap."
  type        = string
  default     = "10.0.0.0/16"

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && try(tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 20, false)
    error_message = "cidr must be an IPv4 range of /16 to /20, got ${var.cidr}."
  }
}

variable "zones" {
  description = "Availability zones that are used: 1, 2, 3. Azure's subnets span the region; NAT stands in the first."
  type        = list(string)

  validation {
    condition     = length(var.zones) >= 2 && length(distinct(var.zones)) == length(var.zones)
    error_message = "zones must be 2 or more different zones, got ${jsonencode(var.zones)}."
  }

  validation {
    condition     = alltrue([for zone in var.zones : contains(["1", "2", "3"], zone)])
    error_message = "zones must be 1, 2 or 3, as Azure numbers them, got ${jsonencode(var.zones)}."
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
