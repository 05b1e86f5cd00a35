"""TrainingCluster: elastic Ray clusters, run by KubeRay."""
