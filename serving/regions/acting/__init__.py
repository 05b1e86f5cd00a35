"""Carries out what `deciding/` decides: leaders at home, workers in each region, the agent's API."""
