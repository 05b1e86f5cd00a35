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
  description = "The virtual network: `network_id` of the network module."
  type        = string
}

variable "subnet_ids" {
  description = "The nodes' subnet, with a way out by NAT."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) == 1
    error_message = "subnet_ids must be one subnet, since Azure's span the region, got ${jsonencode(var.subnet_ids)}."
  }
}

variable "kubernetes_version" {
  description = "Minor version of Kubernetes."
  type        = string
  default     = "1.33"

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version must be a minor version such as 1.33, got ${var.kubernetes_version}."
  }
}

variable "node_groups" {
  description = "Groups of nodes by name (12 lower-case letters and digits at most). With gpus they are tainted nvidia.com/gpu, with spot also spot=true; rdma asks for an ND size, whose InfiniBand ends at the scale set."
  type = map(object({
    instance_type = string
    min           = number
    max           = number
    gpus          = optional(number, 0)
    spot          = optional(bool, false)
    rdma          = optional(bool, false)
    labels        = optional(map(string), {})
    taints        = optional(list(object({ key = string, value = string, effect = string })), [])
  }))

  validation {
    condition     = alltrue([for name, group in var.node_groups : can(regex("^[a-z][a-z0-9]{0,11}$", name))])
    error_message = "node_groups must have names of 1 to 12 lower-case letters and digits, as AKS wants, got ${jsonencode(keys(var.node_groups))}."
  }

  validation {
    condition     = alltrue([for group in var.node_groups : group.min >= 0 && group.max >= group.min && group.max > 0])
    error_message = "node_groups must have 0 <= min <= max and max > 0, got ${jsonencode({ for name, group in var.node_groups : name => [group.min, group.max] })}."
  }

  validation {
    condition     = anytrue([for group in var.node_groups : group.gpus == 0 && !group.spot && group.min > 0])
    error_message = "node_groups must have one without GPUs and on demand with min > 0: the cluster's own services run there."
  }

  validation {
    condition     = alltrue([for group in var.node_groups : !group.rdma || can(regex("^Standard_ND", group.instance_type))])
    error_message = "node_groups with rdma must have an ND size, got ${jsonencode([for group in var.node_groups : group.instance_type if group.rdma])}."
  }
}

variable "private_endpoint" {
  description = "Whether the API server is reached from inside the network only."
  type        = bool
  default     = true
}

variable "admin_cidrs" {
  description = "Ranges that reach a public API server; a private one is reached by whoever is in the network."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.admin_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "admin_cidrs must be IPv4 ranges, none of them the whole internet, got ${jsonencode(var.admin_cidrs)}."
  }

  validation {
    condition     = var.private_endpoint || length(var.admin_cidrs) > 0
    error_message = "admin_cidrs must name who reaches a public endpoint, got none."
  }
}

variable "admin_group_ids" {
  description = "Groups of Entra ID that administer the cluster; there are no local accounts."
  type        = list(string)
  default     = []
}

variable "service_accounts" {
  description = "Kubernetes service accounts that get a managed identity, by its name; bucket_access: none, read or write."
  type = map(object({
    namespace     = string
    name          = string
    bucket_access = optional(string, "none")
  }))
  default = {}

  validation {
    condition     = alltrue([for account in var.service_accounts : contains(["none", "read", "write"], account.bucket_access)])
    error_message = "bucket_access must be none, read or write, got ${jsonencode({ for name, account in var.service_accounts : name => account.bucket_access })}."
  }
}

variable "bucket_ids" {
  description = "Storage accounts that bucket_access is about, by a name of one's own: `account_id` of the storage module."
  type        = map(string)
  default     = {}
}

variable "zones" {
  description = "Availability zones of the nodes; groups with rdma use the first one alone."
  type        = list(string)
  default     = ["1", "2", "3"]
}
