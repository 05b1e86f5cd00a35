"""Evaluation: held-out figures with intervals, and the golden set that regions replay."""
