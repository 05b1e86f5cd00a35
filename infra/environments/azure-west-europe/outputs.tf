output "cluster" {
  description = "How the cluster is reached, and the identities of its service accounts."
  value = {
    name                = module.cluster.cluster_name
    endpoint            = module.cluster.endpoint
    ca_certificate      = module.cluster.ca_certificate
    oidc_issuer         = module.cluster.oidc_issuer
    workload_identities = module.cluster.workload_identities
    node_group_names    = module.cluster.node_group_names
  }
}

output "network" {
  description = "What another network needs to peer with this one."
  value       = { network_id = module.network.network_id, cidr = module.network.cidr }
}

output "storage" {
  description = "The artifact store."
  value       = { url = module.storage.url, bucket = module.storage.bucket, replica_bucket = module.storage.replica_bucket }
}

output "database" {
  description = "The database, and the secret that holds its password."
  value       = { host = module.database.host, port = module.database.port, database = module.database.database, secret_id = module.database.secret_id }
}
