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

variable "cluster_name" {
  description = "The cluster whose logs and nodes are watched: `cluster_name` of the cluster module."
  type        = string
}

variable "notify_emails" {
  description = "Who is told of alarms, budget and anomalies; each address confirms once."
  type        = list(string)

  validation {
    condition     = length(var.notify_emails) > 0 && alltrue([for email in var.notify_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", email))])
    error_message = "notify_emails must be one or more e-mail addresses, got ${jsonencode(var.notify_emails)}."
  }
}

variable "budget_usd_monthly" {
  description = "What everything with these tags may cost in a month, in US dollars."
  type        = number

  validation {
    condition     = var.budget_usd_monthly > 0
    error_message = "budget_usd_monthly must be > 0, got ${var.budget_usd_monthly}."
  }
}

variable "retention_days" {
  description = "Days for which containers' logs are kept; one of the numbers that CloudWatch knows."
  type        = number
  default     = 365

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.retention_days)
    error_message = "retention_days must be a retention of CloudWatch such as 30, 90 or 365, got ${var.retention_days}."
  }
}

variable "anomaly_detection" {
  description = "Whether costs that leave their pattern are told; needs rights on Cost Explorer."
  type        = bool
  default     = true
}

variable "anomaly_usd" {
  description = "From which unexpected cost on people are told, in US dollars."
  type        = number
  default     = 100
}
