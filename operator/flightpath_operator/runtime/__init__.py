"""What touches the world: watches, queue, writes, leadership, health and metrics around the pure reconcilers."""
