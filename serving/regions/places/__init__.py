"""Where the regions are and how their agents are spoken to."""
