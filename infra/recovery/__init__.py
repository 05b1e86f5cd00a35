"""Backup and restore of a region: its registry and its artifact store. docs/disaster-recovery.md is its page."""
