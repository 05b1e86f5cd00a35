"""Golden sets of each kind, put to a model server as a gate and replayed as requests."""
