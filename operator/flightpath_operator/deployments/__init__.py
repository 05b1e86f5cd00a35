"""ModelDeployment: model servers as plain Kubernetes objects, or as KServe's."""
