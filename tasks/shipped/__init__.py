"""The recipes that ship with Flightpath. Nothing imports them: they are found by name (`tasks/recipes/finding.py`)."""
