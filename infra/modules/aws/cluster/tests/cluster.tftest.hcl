mock_provider "aws" {
  source = "../mocks"
}

variables {
  name   = "flightpath-us-east"
  region = "us-east-1"
  tags   = { team = "ml-platform", environment = "test", cost-center = "research" }

  network_id = "vpc-1"
  subnet_ids = ["subnet-a", "subnet-b"]

  node_groups = {
    system   = { instance_type = "m7i.xlarge", min = 2, max = 4 }
    arm      = { instance_type = "m7g.xlarge", min = 0, max = 4 }
    training = { instance_type = "p4d.24xlarge", min = 0, max = 4, gpus = 8, rdma = true, labels = { workload = "training" } }
    spot     = { instance_type = "g5.xlarge", min = 0, max = 4, gpus = 1, spot = true, taints = [{ key = "team", value = "vision", effect = "NoExecute" }] }
  }
}

run "the_api_server_is_private_and_its_secrets_are_encrypted" {
  command = plan

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_private_access && !aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    error_message = "reached from inside only"
  }
  assert {
    condition     = aws_eks_cluster.this.encryption_config[0].resources == toset(["secrets"]) && aws_kms_key.this.enable_key_rotation
    error_message = "secrets are encrypted under a key that rotates"
  }
  assert {
    condition     = length(aws_eks_cluster.this.enabled_cluster_log_types) == 5 && aws_cloudwatch_log_group.this.name == "/aws/eks/flightpath-us-east/cluster"
    error_message = "all of the control plane is logged, into a group of ours"
  }
  assert {
    condition     = contains(keys(aws_eks_addon.this), "eks-node-monitoring-agent") && aws_eks_addon.this["aws-ebs-csi-driver"].addon_name == "aws-ebs-csi-driver"
    error_message = "the operator reads the node monitoring agent's conditions"
  }
  assert {
    condition     = aws_eks_cluster.this.tags["cost-center"] == "research" && aws_eks_node_group.this["spot"].tags["node-group"] == "spot"
    error_message = "costs are told by tags, also by node group"
  }
}

run "gpu_nodes_bear_what_the_operator_and_its_examples_go_by" {
  command = plan

  assert {
    condition     = anytrue([for taint in aws_eks_node_group.this["training"].taint : taint.key == "nvidia.com/gpu" && taint.effect == "NO_SCHEDULE"])
    error_message = "only what wants GPUs runs on them"
  }
  assert {
    condition     = toset([for taint in aws_eks_node_group.this["spot"].taint : "${taint.key}=${taint.value}:${taint.effect}"]) == toset(["nvidia.com/gpu=true:NO_SCHEDULE", "spot=true:NO_SCHEDULE", "team=vision:NO_EXECUTE"])
    error_message = "GPU, spot and the group's own taints"
  }
  assert {
    condition     = aws_eks_node_group.this["spot"].capacity_type == "SPOT" && aws_eks_node_group.this["spot"].labels["karpenter.sh/capacity-type"] == "spot" && aws_eks_node_group.this["system"].labels["karpenter.sh/capacity-type"] == "on-demand"
    error_message = "jobs choose spot by its label"
  }
  assert {
    condition     = aws_eks_node_group.this["training"].labels["flightpath.dev/node-group"] == "training" && aws_eks_node_group.this["training"].labels["workload"] == "training"
    error_message = "the group's name and own labels"
  }
  assert {
    condition     = aws_eks_node_group.this["training"].ami_type == "AL2023_x86_64_NVIDIA" && aws_eks_node_group.this["arm"].ami_type == "AL2023_ARM_64_STANDARD" && aws_eks_node_group.this["system"].ami_type == "AL2023_x86_64_STANDARD"
    error_message = "drivers where there are GPUs"
  }
  assert {
    condition     = length(aws_eks_node_group.this["system"].taint) == 0
    error_message = "the cluster's own services tolerate nothing"
  }
}

run "rdma_means_efa_on_each_card_a_placement_group_and_one_zone" {
  command = plan

  assert {
    condition     = [for card in aws_launch_template.this["training"].network_interfaces : card.interface_type] == ["efa", "efa-only", "efa-only", "efa-only"]
    error_message = "a p4d has four cards"
  }
  assert {
    condition     = keys(aws_placement_group.this) == ["training"] && aws_placement_group.this["training"].strategy == "cluster"
    error_message = "close together"
  }
  assert {
    condition     = aws_eks_node_group.this["training"].subnet_ids == toset(["subnet-a"]) && length(aws_eks_node_group.this["system"].subnet_ids) == 2
    error_message = "fabrics end at the zone"
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.efa[0].ip_protocol == "-1" && length(aws_vpc_security_group_egress_rule.efa) == 1
    error_message = "EFA wants a group that lets its own members in and out"
  }
}

run "nodes_give_their_credentials_to_no_pod_and_their_disks_are_encrypted" {
  command = plan

  assert {
    condition     = alltrue([for template in aws_launch_template.this : template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "IMDSv2, one hop"
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.this : template.block_device_mappings[0].ebs[0].encrypted == "true"])
    error_message = "encrypted root volumes"
  }
}

run "service_accounts_get_roles_and_only_those_that_want_it_buckets" {
  command = apply

  variables {
    bucket_arns     = ["arn:aws:s3:::artifacts"]
    bucket_key_arns = ["arn:aws:kms:us-east-1:123456789012:key/1"]
    service_accounts = {
      agent    = { namespace = "flightpath-system", name = "agent", bucket_access = "write" }
      server   = { namespace = "flightpath-serving", name = "server", bucket_access = "read" }
      operator = { namespace = "flightpath-system", name = "operator" }
    }
  }
  assert {
    condition     = toset(keys(aws_iam_role.workload)) == toset(["agent", "server", "operator", "ebs-csi"]) && toset(keys(aws_iam_role_policy.buckets)) == toset(["agent", "server"])
    error_message = "a role each, buckets for two"
  }
  assert {
    condition     = contains(data.aws_iam_policy_document.buckets["agent"].statement[1].actions, "s3:PutObject") && !contains(data.aws_iam_policy_document.buckets["server"].statement[1].actions, "s3:PutObject")
    error_message = "read does not write"
  }
  assert {
    condition     = data.aws_iam_policy_document.workload_trust["agent"].statement[0].condition != null && length(data.aws_iam_policy_document.workload_trust["agent"].statement[0].condition) == 2
    error_message = "one service account, one audience"
  }
}

run "a_public_endpoint_is_open_to_named_ranges_only" {
  command = plan

  variables {
    private_endpoint = false
    admin_cidrs      = ["203.0.113.0/24"]
  }
  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_public_access && aws_eks_cluster.this.vpc_config[0].public_access_cidrs == toset(["203.0.113.0/24"])
    error_message = "to the administrators"
  }
}

run "an_endpoint_open_to_all_and_bad_values_are_refused" {
  command = plan

  variables {
    name               = "Flightpath_US"
    tags               = { team = "ml-platform" }
    subnet_ids         = ["subnet-a"]
    kubernetes_version = "latest"
    admin_cidrs        = ["0.0.0.0/0"]
    service_accounts   = { agent = { namespace = "x", name = "y", bucket_access = "all" } }
  }
  expect_failures = [var.name, var.tags, var.subnet_ids, var.kubernetes_version, var.admin_cidrs, var.service_accounts]
}

run "a_public_endpoint_for_nobody_and_a_cluster_of_spot_gpus_alone_are_refused" {
  command = plan

  variables {
    private_endpoint = false
    node_groups      = { spot = { instance_type = "g5.xlarge", min = 3, max = 1, gpus = 1, spot = true, rdma = true, taints = [{ key = "a", value = "b", effect = "Never" }] } }
  }
  expect_failures = [var.admin_cidrs, var.node_groups]
}

run "bucket_access_without_a_bucket_is_refused" {
  command = plan

  variables {
    service_accounts = { agent = { namespace = "flightpath-system", name = "agent", bucket_access = "write" } }
  }
  expect_failures = [aws_iam_role_policy.buckets]
}
