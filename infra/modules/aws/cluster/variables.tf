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

variable "network_id" {
  description = "The VPC: `network_id` of the network module."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets of at least two zones; groups with rdma use the first one alone."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids must be of at least two zones, got ${jsonencode(var.subnet_ids)}."
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
  description = "Groups of nodes by name. With gpus they are tainted nvidia.com/gpu, with spot also spot=true; rdma asks for EFA and a placement group."
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
    condition     = alltrue([for group in var.node_groups : !group.rdma || can(regex("^(p4de?|p5(e|en)?|p6(e)?(-[a-z0-9]+)?|trn1n|trn2u?)\\.", group.instance_type))])
    error_message = "node_groups with rdma must have an instance type whose EFA reaches GPU memory (p4d, p5, p6, trn), got ${jsonencode([for group in var.node_groups : group.instance_type if group.rdma])}."
  }

  validation {
    condition     = alltrue(flatten([for group in var.node_groups : [for taint in group.taints : contains(["NoSchedule", "NoExecute", "PreferNoSchedule"], taint.effect)]]))
    error_message = "taints must have the effect NoSchedule, NoExecute or PreferNoSchedule."
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

variable "admin_role_arns" {
  description = "IAM roles of the people and pipelines that administer the cluster."
  type        = set(string)
  default     = []
}

variable "service_accounts" {
  description = "Kubernetes service accounts that get a role of AWS (IRSA), by name of the role; bucket_access: none, read or write."
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

variable "bucket_arns" {
  description = "Buckets that bucket_access is about."
  type        = list(string)
  default     = []
}

variable "bucket_key_arns" {
  description = "KMS keys of those buckets."
  type        = list(string)
  default     = []
}

variable "log_retention_days" {
  description = "Days for which the control plane's logs are kept."
  type        = number
  default     = 365
}

variable "addons" {
  description = "EKS add-ons. The node monitoring agent tells of broken GPUs, on which the operator moves workers."
  type        = set(string)
  default     = ["vpc-cni", "kube-proxy", "coredns", "aws-ebs-csi-driver", "eks-node-monitoring-agent"]
}

variable "root_volume_gb" {
  description = "Size of a node's root volume: images of models are large."
  type        = number
  default     = 200
}
