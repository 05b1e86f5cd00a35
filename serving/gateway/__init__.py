"""The data plane's front: one gateway per region, open to users, weights set by the region's agent."""
