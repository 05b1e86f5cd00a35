"""Everything a region runs: bundles, stores, gateways, model servers and agents. Imports nothing above it."""
