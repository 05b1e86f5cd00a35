# One name for all regions: Traffic Manager answers with a healthy endpoint by latency, by weight or by order.

data "azurerm_dns_zone" "this" {
  name = var.zone
}

locals {
  tags        = merge(var.tags, { module = "traffic" })
  health_path = distinct([for endpoint in var.endpoints : endpoint.health_path])[0]
  routing     = { latency = "Performance", weighted = "Weighted", failover = "Priority" }
  # By weight, the highest first; the name decides between equals, so that no plan swaps them.
  ranked = [for key in sort([for name, endpoint in var.endpoints : format("%04d/%s", 1000 - endpoint.weight, name)]) : split("/", key)[1]]
}

resource "azurerm_resource_group" "this" {
  name     = "${var.name}-traffic"
  location = var.region
  tags     = local.tags
}

resource "azurerm_traffic_manager_profile" "this" {
  name                   = var.name
  resource_group_name    = azurerm_resource_group.this.name
  traffic_routing_method = local.routing[var.policy]
  tags                   = local.tags

  dns_config {
    relative_name = var.name
    ttl           = var.ttl_seconds
  }

  monitor_config {
    protocol                     = "HTTPS"
    port                         = 443
    path                         = local.health_path
    interval_in_seconds          = 10
    timeout_in_seconds           = 5
    tolerated_number_of_failures = 2
  }
}

resource "azurerm_traffic_manager_external_endpoint" "this" {
  for_each          = var.endpoints
  name              = each.key
  profile_id        = azurerm_traffic_manager_profile.this.id
  target            = each.value.target
  endpoint_location = each.value.region
  weight            = each.value.weight
  priority          = index(local.ranked, each.key) + 1
}

resource "azurerm_dns_cname_record" "this" {
  name                = var.record
  zone_name           = data.azurerm_dns_zone.this.name
  resource_group_name = data.azurerm_dns_zone.this.resource_group_name
  ttl                 = var.ttl_seconds
  record              = azurerm_traffic_manager_profile.this.fqdn
  tags                = local.tags
}
