"""Provisioning clusters: plan, policy, approval, apply, install, smoke; drift; cost. `task.py` is the Flyte shell."""
