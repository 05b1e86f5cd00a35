output "neighbour" {
  description = "What another region needs of this one: an entry of its `neighbours`."
  value = {
    region       = var.region
    network_id   = module.network.network_id
    cidr         = module.network.cidr
    bucket_arn   = module.storage.bucket_arn
    kms_key_id   = module.storage.kms_key_id
    database_arn = module.database.arn
    peering_ids  = module.network.peering_ids
  }
}

output "cluster" {
  description = "How the cluster is reached, and the roles of its service accounts."
  value = {
    name                = module.cluster.cluster_name
    endpoint            = module.cluster.endpoint
    ca_certificate      = module.cluster.ca_certificate
    oidc_issuer         = module.cluster.oidc_issuer
    workload_identities = module.cluster.workload_identities
    node_group_names    = module.cluster.node_group_names
  }
}

output "storage" {
  description = "The artifact store."
  value       = { url = module.storage.url, bucket = module.storage.bucket, replica_bucket = module.storage.replica_bucket }
}

output "database" {
  description = "The database, the secret that holds its password, and the standby of a neighbour's."
  value = {
    host         = module.database.host
    port         = module.database.port
    database     = module.database.database
    secret_id    = module.database.secret_id
    standby_host = one(module.standby[*].replica_host)
  }
}

output "repository_urls" {
  description = "Image repositories."
  value       = module.registry.repository_urls
}

output "observability" {
  description = "Where metrics, logs and alarms of AWS itself go."
  value       = { workspace_id = module.observability.workspace_id, log_group = module.observability.log_group, alarm_topic = module.observability.alarm_topic }
}
