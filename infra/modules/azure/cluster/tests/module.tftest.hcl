# With mock providers: rules of inputs, and what the plan says of encryption and reach.

mock_provider "azurerm" {
  mock_data "azurerm_client_config" {
    defaults = {
      tenant_id       = "00000000-0000-0000-0000-000000000001"
      subscription_id = "00000000-0000-0000-0000-000000000002"
      object_id       = "00000000-0000-0000-0000-000000000003"
    }
  }
}

variables {
  name       = "flightpath-test"
  region     = "westeurope"
  tags       = { team = "ml-platform", environment = "test", cost-center = "research" }
  network_id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/n"
  subnet_ids = ["/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/n/subnets/private"]
  node_groups = {
    system = { instance_type = "Standard_D4s_v5", min = 1, max = 3 }
    gpu    = { instance_type = "Standard_ND96asr_v4", min = 0, max = 2, gpus = 8, spot = true }
  }
}

run "the_control_plane_is_private_and_has_no_local_accounts" {
  command = plan

  assert {
    condition     = azurerm_kubernetes_cluster.this.private_cluster_enabled
    error_message = "the endpoint must be private"
  }

  assert {
    condition     = azurerm_kubernetes_cluster.this.local_account_disabled
    error_message = "there must be no local accounts"
  }

  assert {
    condition     = length(azurerm_kubernetes_cluster.this.key_management_service) == 1
    error_message = "secrets must be encrypted by our key"
  }
}

run "gpu_nodes_on_spot_are_labelled_and_tainted" {
  command = plan

  assert {
    condition     = azurerm_kubernetes_cluster_node_pool.this["gpu"].priority == "Spot"
    error_message = "the pool must be spot"
  }

  assert {
    condition     = azurerm_kubernetes_cluster_node_pool.this["gpu"].node_labels["karpenter.sh/capacity-type"] == "spot"
    error_message = "the label of spot must be there"
  }

  assert {
    condition     = contains(azurerm_kubernetes_cluster_node_pool.this["gpu"].node_taints, "nvidia.com/gpu=true:NoSchedule")
    error_message = "the taint of GPUs must be there"
  }
}

run "a_name_with_capitals_is_refused" {
  command = plan

  variables {
    name = "Flightpath"
  }

  expect_failures = [var.name]
}

run "a_missing_tag_is_refused" {
  command = plan

  variables {
    tags = { team = "ml-platform" }
  }

  expect_failures = [var.tags]
}

run "a_public_endpoint_for_everyone_is_refused" {
  command = plan

  variables {
    private_endpoint = false
  }

  expect_failures = [var.admin_cidrs]
}

run "a_name_that_aks_refuses_is_refused" {
  command = plan

  variables {
    node_groups = { system-pool = { instance_type = "Standard_D4s_v5", min = 1, max = 3 } }
  }

  expect_failures = [var.node_groups]
}
