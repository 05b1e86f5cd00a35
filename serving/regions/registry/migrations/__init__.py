"""Alembic's environment of the registry, found beside the code so that a wheel carries it."""
