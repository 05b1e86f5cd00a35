variable "cost_center" {
  description = "Who pays: the tag cost-center."
  type        = string
}

variable "zone" {
  description = "Hosted zone, for example models.example.com."
  type        = string
}

variable "create_zone" {
  description = "Whether the zone is made here."
  type        = bool
  default     = false
}

variable "record" {
  description = "Name inside the zone that users call."
  type        = string
  default     = "api"
}

variable "policy" {
  description = "latency, weighted or failover."
  type        = string
  default     = "latency"
}

variable "regions" {
  description = "Regions that serve, by name: AWS region, host name of the gateway's load balancer, and bucket and replica_bucket of the output `storage`."
  type = map(object({
    region         = string
    gateway        = string
    weight         = optional(number, 100)
    bucket         = string
    replica_bucket = optional(string)
  }))

  validation {
    condition     = length(var.regions) > 0
    error_message = "regions must hold at least one region that serves."
  }

  validation {
    condition     = alltrue([for there in var.regions : contains([for other in var.regions : other.bucket], coalesce(there.replica_bucket, there.bucket))])
    error_message = "regions must replicate to a bucket of one another, got ${jsonencode({ for name, there in var.regions : name => there.replica_bucket })}."
  }
}
