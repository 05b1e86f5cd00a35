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

variable "network_id" {
  description = "The VPC network: `network_id` of the network module."
  type        = string
}

variable "subnet_ids" {
  description = "The nodes' subnet, with the secondary ranges pods and services."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) == 1
    error_message = "subnet_ids must be one subnet, since Google's span the region, got ${jsonencode(var.subnet_ids)}."
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
  description = "Groups of nodes by name. With gpus they are tainted nvidia.com/gpu, with spot also spot=true; rdma asks for a compact placement in one zone."
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
    condition     = alltrue([for group in var.node_groups : group.min >= 0 && group.max >= group.min && group.max > 0])
    error_message = "node_groups must have 0 <= min <= max and max > 0, got ${jsonencode({ for name, group in var.node_groups : name => [group.min, group.max] })}."
  }

  validation {
    condition     = anytrue([for group in var.node_groups : group.gpus == 0 && !group.spot && group.min > 0])
    error_message = "node_groups must have one without GPUs and on demand with min > 0: the cluster's own services run there."
  }

  validation {
    condition     = alltrue([for group in var.node_groups : group.gpus == 0 || can(regex("^(a2-|a3-|g2-)", group.instance_type))])
    error_message = "node_groups with gpus must have a machine type of A2, A3 or G2, got ${jsonencode([for group in var.node_groups : group.instance_type if group.gpus > 0])}."
  }

  validation {
    condition     = alltrue([for group in var.node_groups : !group.rdma || can(regex("^a3-", group.instance_type))])
    error_message = "node_groups with rdma must have a machine type of A3, got ${jsonencode([for group in var.node_groups : group.instance_type if group.rdma])}."
  }
}

variable "private_endpoint" {
  description = "Whether the API server is reached from inside the network (and admin_cidrs) only."
  type        = bool
  default     = true
}

variable "admin_cidrs" {
  description = "Ranges that reach the API server: through the network if the endpoint is private, else over the internet."
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

variable "service_accounts" {
  description = "Kubernetes service accounts that get a Google service account, by its name; bucket_access: none, read or write."
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

variable "buckets" {
  description = "Names of the buckets that bucket_access is about."
  type        = set(string)
  default     = []
}

variable "control_plane_cidr" {
  description = "Range of the control plane's own network."
  type        = string
  default     = "172.16.0.0/28"
}

variable "rdma_zone" {
  description = "Zone of the groups with rdma, whose fabric ends there; null: the region's zone a."
  type        = string
  default     = null
}

variable "protect" {
  description = "Whether Terraform must refuse to destroy the cluster."
  type        = bool
  default     = true
}
