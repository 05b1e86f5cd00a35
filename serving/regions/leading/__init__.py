"""What the home region's agent does: it leads promotions and rollbacks through the regions, and hands the lead on."""
