"""Ordering a promotion from the agents and following it to its end."""
