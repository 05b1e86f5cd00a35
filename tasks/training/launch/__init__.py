"""Launchers: the same training loop under Ray, under torchrun, or in this process."""

from typing import Final

from serving.errors import InvalidInput

RAY: Final = "ray"
"""Ray Train, on a cluster that flytekitplugins-ray asks for."""
ELASTIC: Final = "elastic"
"""PyTorch elastic (torchrun), through flytekitplugins-kfpytorch."""
LAUNCHERS: Final = (RAY, ELASTIC)


def check_launcher(name: str) -> None:
    if name not in LAUNCHERS:
        raise InvalidInput("unknown launcher", got=name, expected=" | ".join(LAUNCHERS))
