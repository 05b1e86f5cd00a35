"""Training: a recipe, a loop any launcher can run, checkpoints that are whole or absent."""
