"""One machine: the supervisor of three regions, the demo and its traffic."""
