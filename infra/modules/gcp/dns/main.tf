# One name for all regions: who asks is led to a healthy endpoint by place, by weight or by order.
# Record sets take no labels, and neither do health checks.

locals {
  fqdn        = "${var.record}.${var.zone}"
  health_path = distinct([for endpoint in var.endpoints : endpoint.health_path])[0]
  # By weight, the highest first; the name decides between equals, so that no plan swaps them.
  ranked  = [for key in sort([for name, endpoint in var.endpoints : format("%04d/%s", 1000 - endpoint.weight, name)]) : split("/", key)[1]]
  primary = local.ranked[0]
  backups = slice(local.ranked, 1, length(local.ranked))
}

resource "google_compute_health_check" "this" {
  name                = "${var.name}-dns"
  source_regions      = var.probe_regions
  check_interval_sec  = 30
  timeout_sec         = 5
  healthy_threshold   = 2
  unhealthy_threshold = 2

  https_health_check {
    port         = 443
    host         = local.fqdn
    request_path = local.health_path
  }
}

resource "google_dns_record_set" "this" {
  name         = "${local.fqdn}."
  managed_zone = coalesce(var.zone_name, replace(var.zone, ".", "-"))
  type         = "A"
  ttl          = var.ttl_seconds

  routing_policy {
    health_check = google_compute_health_check.this.id

    dynamic "geo" {
      for_each = var.policy == "latency" ? var.endpoints : {}
      content {
        location = geo.value.region
        health_checked_targets {
          external_endpoints = [geo.value.target]
        }
      }
    }

    dynamic "wrr" {
      for_each = var.policy == "weighted" ? var.endpoints : {}
      content {
        weight = wrr.value.weight
        health_checked_targets {
          external_endpoints = [wrr.value.target]
        }
      }
    }

    dynamic "primary_backup" {
      for_each = var.policy == "failover" ? [local.primary] : []
      content {
        primary {
          external_endpoints = [var.endpoints[primary_backup.value].target]
        }
        dynamic "backup_geo" {
          for_each = local.backups
          content {
            location = var.endpoints[backup_geo.value].region
            health_checked_targets {
              external_endpoints = [var.endpoints[backup_geo.value].target]
            }
          }
        }
      }
    }
  }
}
