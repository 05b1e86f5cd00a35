"""Kinds of models that are ready to use, and how each is judged."""
