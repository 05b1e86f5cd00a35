# Nodes: pools on demand and on spot. Labels and taints are those that the operator and its examples use.

locals {
  gpu_taint = { key = "nvidia.com/gpu", value = "true", effect = "NoSchedule" }
  # AKS taints its spot nodes by itself, beside ours; a job on spot tolerates both.
  spot_taints = [
    { key = "kubernetes.azure.com/scalesetpriority", value = "spot", effect = "NoSchedule" },
    { key = "spot", value = "true", effect = "NoSchedule" },
  ]

  # The control plane comes with one pool, and it must be able to run the cluster's own services.
  system = sort([for name, group in var.node_groups : name if group.gpus == 0 && !group.spot && group.min > 0])[0]

  groups = {
    for name, group in var.node_groups : name => merge(group, {
      taints = concat(group.gpus > 0 ? [local.gpu_taint] : [], group.spot ? local.spot_taints : [], group.taints)
      labels = merge(group.labels, {
        "flightpath.dev/node-group"  = name
        "karpenter.sh/capacity-type" = group.spot ? "spot" : "on-demand"
      }, group.gpus > 0 ? { "nvidia.com/gpu.present" = "true" } : {}, group.spot ? { "kubernetes.azure.com/scalesetpriority" = "spot" } : {})
    })
  }
}

resource "azurerm_kubernetes_cluster_node_pool" "this" {
  #checkov:skip=CKV_AZURE_168:an overlay network takes 250 pods a node by default
  for_each                    = { for name, group in local.groups : name => group if name != local.system }
  name                        = each.key
  kubernetes_cluster_id       = azurerm_kubernetes_cluster.this.id
  vm_size                     = each.value.instance_type
  mode                        = "User"
  auto_scaling_enabled        = true
  min_count                   = each.value.min
  max_count                   = each.value.max
  vnet_subnet_id              = var.subnet_ids[0]
  zones                       = each.value.rdma ? [var.zones[0]] : var.zones
  priority                    = each.value.spot ? "Spot" : "Regular"
  eviction_policy             = each.value.spot ? "Delete" : null
  spot_max_price              = each.value.spot ? -1 : null
  gpu_driver                  = each.value.gpus > 0 ? "Install" : null
  host_encryption_enabled     = true
  os_disk_size_gb             = 256
  temporary_name_for_rotation = "tmp${substr(md5(each.key), 0, 8)}"
  node_labels                 = each.value.labels
  node_taints                 = [for taint in each.value.taints : "${taint.key}=${taint.value}:${taint.effect}"]
  tags                        = merge(local.tags, { node-group = each.key })

  # Spot pools are not upgraded by surge.
  dynamic "upgrade_settings" {
    for_each = each.value.spot ? [] : ["33%"]
    content {
      max_surge = upgrade_settings.value
    }
  }

  # The autoscaler's business.
  lifecycle {
    ignore_changes = [node_count]
  }
}
