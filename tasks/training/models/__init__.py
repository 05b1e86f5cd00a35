"""Model families: what the stages need to know of a model, and nothing else knows."""
