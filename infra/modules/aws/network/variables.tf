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

variable "cidr" {
  description = "IPv4 range of the network; those of peered regions must not overlap."
  type        = string
  default     = "10.0.0.0/16"

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && try(tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 20, false)
    error_message = "cidr must be an IPv4 range of /16 to /20, got ${var.cidr}."
  }
}

variable "zones" {
  description = "Availability zones, each of which gets a private and a public subnet."
  type        = list(string)

  validation {
    condition     = length(var.zones) >= 2 && length(var.zones) <= 6 && length(distinct(var.zones)) == length(var.zones)
    error_message = "zones must be 2 to 6 different zones (EKS and RDS want two), got ${jsonencode(var.zones)}."
  }

  validation {
    condition     = alltrue([for zone in var.zones : startswith(zone, var.region)])
    error_message = "zones must lie in ${var.region}, got ${jsonencode(var.zones)}."
  }
}

variable "peers" {
  description = "Networks of other regions that this one asks to peer with, by name."
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

variable "accepted_peers" {
  description = "Peerings that other regions asked for, by the name of that region: `peering_ids` of its network."
  type = map(object({
    peering_id = string
    cidr       = string
  }))
  default = {}
}

variable "nat" {
  description = "NAT gateways: one per zone (survives the loss of a zone), a single one (cheaper), or none."
  type        = string
  default     = "per_zone"

  validation {
    condition     = contains(["per_zone", "single", "none"], var.nat)
    error_message = "nat must be per_zone, single or none, got ${var.nat}."
  }
}

variable "interface_endpoints" {
  description = "AWS services that private subnets reach without NAT, for example ecr.api, ecr.dkr, sts, logs."
  type        = set(string)
  default     = []
}

variable "vpn" {
  description = "Site-to-site VPN to another cloud or an office: its public address, its BGP number and its ranges."
  type = object({
    customer_ip = string
    bgp_asn     = optional(number, 65000)
    cidrs       = list(string)
  })
  default = null

  validation {
    condition     = var.vpn == null || can(cidrhost("${var.vpn.customer_ip}/32", 0))
    error_message = "vpn.customer_ip must be an IPv4 address."
  }
}

variable "flow_log_retention_days" {
  description = "Days for which accepted and rejected connections are kept."
  type        = number
  default     = 365
}
