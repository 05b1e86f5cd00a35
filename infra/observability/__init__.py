"""The eyes on the regions: rules, alerts and dashboards as code. docs/observability.md is their page."""
