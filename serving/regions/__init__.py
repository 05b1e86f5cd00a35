"""The control plane of a region: agent, registry, replication, rollout, traffic and launching model servers."""
