# With mock providers: rules of inputs, and what the plan says of encryption and reach.

mock_provider "google" {}

variables {
  name       = "flightpath-test"
  region     = "europe-west4"
  tags       = { team = "ml-platform", environment = "test", cost-center = "research" }
  network_id = "projects/p/global/networks/n"
  subnet_ids = ["projects/p/regions/europe-west4/subnetworks/s"]
  node_groups = {
    system = { instance_type = "n2-standard-4", min = 1, max = 3 }
    gpu    = { instance_type = "a2-highgpu-8g", min = 0, max = 2, gpus = 8, spot = true }
  }
}

run "the_control_plane_is_private_and_encrypted" {
  command = plan

  assert {
    condition     = google_container_cluster.this.private_cluster_config[0].enable_private_endpoint
    error_message = "the endpoint must be private"
  }

  assert {
    condition     = google_container_cluster.this.database_encryption[0].state == "ENCRYPTED"
    error_message = "secrets must be encrypted"
  }

  assert {
    condition     = google_container_cluster.this.deletion_protection
    error_message = "the cluster must be protected"
  }
}

run "gpu_nodes_on_spot_are_labelled_and_tainted" {
  command = plan

  assert {
    condition     = google_container_node_pool.this["gpu"].node_config[0].labels["karpenter.sh/capacity-type"] == "spot"
    error_message = "the label of spot must be there"
  }

  assert {
    condition     = toset([for taint in google_container_node_pool.this["gpu"].node_config[0].taint : taint.key]) == toset(["nvidia.com/gpu", "spot"])
    error_message = "both taints must be there"
  }

  assert {
    condition     = google_container_node_pool.this["gpu"].node_config[0].guest_accelerator[0].type == "nvidia-tesla-a100"
    error_message = "A2 machines have A100s"
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

run "the_whole_internet_is_refused" {
  command = plan

  variables {
    admin_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.admin_cidrs]
}

run "no_home_for_the_clusters_own_services_is_refused" {
  command = plan

  variables {
    node_groups = { gpu = { instance_type = "a2-highgpu-8g", min = 0, max = 2, gpus = 8 } }
  }

  expect_failures = [var.node_groups]
}
