# A region's network: nodes have private addresses only, go out through NAT, and reach Google's services inside.
# Networks and firewall rules take no labels.

locals {
  private_cidr = cidrsubnet(var.cidr, 1, 0)
  public_cidr  = cidrsubnet(var.cidr, 6, 62)
  # Health checks of Google's load balancers: Cloud Load Balancing documentation, "Firewall rules".
  probe_cidrs = ["35.191.0.0/16", "130.211.0.0/22"]
}

resource "google_compute_network" "this" {
  name                            = var.name
  auto_create_subnetworks         = false
  routing_mode                    = "GLOBAL"
  delete_default_routes_on_create = false
}

resource "google_compute_subnetwork" "private" {
  name                     = "${var.name}-private"
  network                  = google_compute_network.this.id
  region                   = var.region
  ip_cidr_range            = local.private_cidr
  private_ip_google_access = true

  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = var.pods_cidr
  }

  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = var.services_cidr
  }

  log_config {
    aggregation_interval = "INTERVAL_10_MIN"
    flow_sampling        = 0.1
    metadata             = "INCLUDE_ALL_METADATA"
  }
}

# Envoy-based load balancers take their proxies' addresses from here; no machine has one.
resource "google_compute_subnetwork" "public" {
  name          = "${var.name}-proxies"
  network       = google_compute_network.this.id
  region        = var.region
  ip_cidr_range = local.public_cidr
  purpose       = "REGIONAL_MANAGED_PROXY"
  role          = "ACTIVE"
}

resource "google_compute_router" "this" {
  name    = var.name
  network = google_compute_network.this.id
  region  = var.region
}

resource "google_compute_router_nat" "this" {
  name                               = var.name
  router                             = google_compute_router.this.name
  region                             = var.region
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "LIST_OF_SUBNETWORKS"

  subnetwork {
    name                    = google_compute_subnetwork.private.id
    source_ip_ranges_to_nat = ["ALL_IP_RANGES"]
  }

  log_config {
    enable = true
    filter = "ERRORS_ONLY"
  }
}

# Google denies what no rule allows; these are the two that the nodes need.
resource "google_compute_firewall" "internal" {
  name          = "${var.name}-internal"
  network       = google_compute_network.this.id
  direction     = "INGRESS"
  source_ranges = [local.private_cidr, local.public_cidr, var.pods_cidr]

  allow {
    protocol = "tcp"
  }

  allow {
    protocol = "udp"
  }

  allow {
    protocol = "icmp"
  }
}

resource "google_compute_firewall" "probes" {
  name          = "${var.name}-probes"
  network       = google_compute_network.this.id
  direction     = "INGRESS"
  source_ranges = local.probe_cidrs

  allow {
    protocol = "tcp"
  }
}

resource "google_compute_network_peering" "this" {
  for_each             = var.peers
  name                 = "${var.name}-to-${each.key}"
  network              = google_compute_network.this.self_link
  peer_network         = each.value.network_id
  export_custom_routes = false
  import_custom_routes = false
}

# Where Cloud SQL gets its private addresses from.
resource "google_compute_global_address" "services" {
  name          = "${var.name}-services"
  network       = google_compute_network.this.id
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 20
  labels        = var.tags
}

resource "google_service_networking_connection" "this" {
  network                 = google_compute_network.this.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.services.name]
}
