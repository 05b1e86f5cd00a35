"""Flightpath's Kubernetes operator: TrainingJob, TrainingCluster and ModelDeployment."""
