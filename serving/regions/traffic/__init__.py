"""Routes of a region's gateway: what they should be, and how the gateway learns of them."""
