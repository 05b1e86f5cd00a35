"""Launchers: the same training loop under Ray, under torchrun, or in this process."""
