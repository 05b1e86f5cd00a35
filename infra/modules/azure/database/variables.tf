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

variable "network_id" {
  description = "The virtual network, whose members find the server by name."
  type        = string
}

variable "subnet_ids" {
  description = "The subnet that is delegated to PostgreSQL: `database_subnet_ids` of the network module."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) == 1
    error_message = "subnet_ids must be one delegated subnet, got ${jsonencode(var.subnet_ids)}."
  }
}

variable "size" {
  description = "SKU of the server."
  type        = string
  default     = "GP_Standard_D2ds_v4"

  validation {
    condition     = can(regex("^(GP|MO)_Standard_", var.size))
    error_message = "size must be a general-purpose or memory-optimized SKU such as GP_Standard_D2ds_v4 (burstable ones have no standby), got ${var.size}."
  }
}

variable "storage_gb" {
  description = "Size of the disk: a power of two from 32."
  type        = number
  default     = 64

  validation {
    condition     = contains([32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768], var.storage_gb)
    error_message = "storage_gb must be a power of two from 32 to 32768, got ${var.storage_gb}."
  }
}

variable "replica_of" {
  description = "Id of the server in another region that this one follows, read-only; null: it is a primary."
  type        = string
  default     = null
}

variable "protect" {
  description = "Whether a lock keeps the server from being deleted."
  type        = bool
  default     = true
}

variable "admin_cidrs" {
  description = "Public IPv4 ranges that reach the vault of key and password: where Terraform runs."
  type        = list(string)
  default     = []
}

variable "secret_subnet_ids" {
  description = "Subnets that read the password, with the service endpoint Microsoft.KeyVault: the nodes'."
  type        = list(string)
  default     = []
}
