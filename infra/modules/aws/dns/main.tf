# One name for all regions: Route 53 answers with the region that is nearest, or next, and well.

locals {
  tags    = merge(var.tags, { module = "dns" })
  fqdn    = "${var.record}.${var.zone}"
  zone_id = var.create_zone ? aws_route53_zone.this[0].zone_id : data.aws_route53_zone.this[0].zone_id
  # Two endpoints of one weight are refused by the validation, so there is one first.
  greatest  = max([for endpoint in var.endpoints : endpoint.weight]...)
  endpoints = { for name, endpoint in var.endpoints : name => merge(endpoint, { by_address = can(regex("^[0-9.]+$", endpoint.target)) }) }
}

resource "aws_route53_zone" "this" {
  #checkov:skip=CKV2_AWS_38:signing needs the registrar, who is outside
  #checkov:skip=CKV2_AWS_39:the gateways log requests; queries tell less
  count         = var.create_zone ? 1 : 0
  name          = var.zone
  comment       = "Flightpath ${var.name}"
  force_destroy = false
  tags          = local.tags
}

data "aws_route53_zone" "this" {
  count        = var.create_zone ? 0 : 1
  name         = var.zone
  private_zone = false
}

# Fast checks: every 10 s, and three in a row decide.
resource "aws_route53_health_check" "this" {
  for_each          = local.endpoints
  type              = "HTTPS"
  fqdn              = each.value.by_address ? local.fqdn : each.value.target
  ip_address        = each.value.by_address ? each.value.target : null
  port              = var.health_port
  resource_path     = each.value.health_path
  request_interval  = 10
  failure_threshold = 3
  measure_latency   = true
  enable_sni        = true
  tags              = merge(local.tags, { Name = "${var.name}-${each.key}" })
}

resource "aws_route53_record" "this" {
  for_each        = local.endpoints
  zone_id         = local.zone_id
  name            = local.fqdn
  type            = each.value.by_address ? "A" : "CNAME"
  ttl             = var.ttl_seconds
  records         = [each.value.target]
  set_identifier  = each.key
  health_check_id = aws_route53_health_check.this[each.key].id

  dynamic "latency_routing_policy" {
    for_each = var.policy == "latency" ? [each.value.region] : []
    content {
      region = latency_routing_policy.value
    }
  }

  dynamic "weighted_routing_policy" {
    for_each = var.policy == "weighted" ? [each.value.weight] : []
    content {
      weight = weighted_routing_policy.value
    }
  }

  dynamic "failover_routing_policy" {
    for_each = var.policy == "failover" ? [each.value.weight == local.greatest ? "PRIMARY" : "SECONDARY"] : []
    content {
      type = failover_routing_policy.value
    }
  }
}
