"""Copies of bundles in a region: how they come, how they stay whole, and when they go."""

from serving.regions.replication.audit import AuditLimits, BundleAudit, Finding
from serving.regions.replication.replicator import Replicator

__all__ = ["AuditLimits", "BundleAudit", "Finding", "Replicator"]
