# Nodes: pools on demand and on spot. Labels and taints are those that the operator and its examples use.

locals {
  # GKE taints GPU nodes with this value by itself.
  gpu_taint  = { key = "nvidia.com/gpu", value = "present", effect = "NoSchedule" }
  spot_taint = { key = "spot", value = "true", effect = "NoSchedule" }
  effects    = { NoSchedule = "NO_SCHEDULE", NoExecute = "NO_EXECUTE", PreferNoSchedule = "PREFER_NO_SCHEDULE" }

  # Compute Engine documentation, "GPU machine types".
  accelerators = { a2 = "nvidia-tesla-a100", a3 = "nvidia-h100-80gb", g2 = "nvidia-l4" }

  groups = {
    for name, group in var.node_groups : name => merge(group, {
      taints = concat(group.gpus > 0 ? [local.gpu_taint] : [], group.spot ? [local.spot_taint] : [], group.taints)
      labels = merge(group.labels, {
        "flightpath.dev/node-group"  = name
        "karpenter.sh/capacity-type" = group.spot ? "spot" : "on-demand"
      }, group.gpus > 0 ? { "nvidia.com/gpu.present" = "true" } : {})
      accelerator = lookup(local.accelerators, split("-", group.instance_type)[0], null)
    })
  }
}

resource "google_service_account" "node" {
  account_id   = "${var.name}-node"
  display_name = "Nodes of ${var.name}"
}

resource "google_project_iam_member" "node" {
  for_each = toset(["roles/container.defaultNodeServiceAccount", "roles/artifactregistry.reader"])
  project  = local.project
  role     = each.key
  member   = google_service_account.node.member
}

resource "google_container_node_pool" "this" {
  for_each       = local.groups
  name           = each.key
  cluster        = google_container_cluster.this.id
  location       = var.region
  node_locations = each.value.rdma ? [coalesce(var.rdma_zone, "${var.region}-a")] : null

  autoscaling {
    total_min_node_count = each.value.min
    total_max_node_count = each.value.max
    location_policy      = each.value.spot ? "ANY" : "BALANCED"
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  # GPUs are scarce: upgrading in place of a surge asks for none above the quota.
  upgrade_settings {
    max_surge       = each.value.gpus > 0 ? 0 : 1
    max_unavailable = each.value.gpus > 0 ? 1 : 0
  }

  dynamic "placement_policy" {
    for_each = each.value.rdma ? ["COMPACT"] : []
    content {
      type = placement_policy.value
    }
  }

  node_config {
    machine_type    = each.value.instance_type
    spot            = each.value.spot
    image_type      = "COS_CONTAINERD"
    disk_type       = "pd-balanced"
    disk_size_gb    = 200
    service_account = google_service_account.node.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    labels          = each.value.labels
    resource_labels = merge(local.labels, { node-group = each.key })
    metadata        = { disable-legacy-endpoints = "true" }

    dynamic "guest_accelerator" {
      for_each = each.value.gpus > 0 ? [each.value.accelerator] : []
      content {
        type  = guest_accelerator.value
        count = each.value.gpus
        gpu_driver_installation_config {
          gpu_driver_version = "LATEST"
        }
      }
    }

    dynamic "taint" {
      for_each = each.value.taints
      content {
        key    = taint.value.key
        value  = taint.value.value
        effect = local.effects[taint.value.effect]
      }
    }

    gvnic {
      enabled = true
    }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = "GKE_METADATA"
    }
  }

  depends_on = [google_project_iam_member.node]
}
