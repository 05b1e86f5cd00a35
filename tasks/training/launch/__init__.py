"""Launchers: the same training loop under Ray, under torchrun, or in this process."""

from typing import Final

from serving.errors import InvalidInput

RAY: Final = "ray"
"""Ray Train, on a cluster that flytekitplugins-ray asks for."""
ELASTIC: Final = "elastic"
"""PyTorch elastic (torchrun), through flytekitplugins-kfpytorch."""
LAUNCHERS: Final = (RAY, ELASTIC)


STORE_OF_ITS_OWN: Final = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""For an elastic agent that may start its workers again. torch 2.13 keeps one store through all rounds of a rendezvous:
workers of the next round may find the addresses of the last, and gloo's then wait for each other for half an hour."""


def check_launcher(name: str) -> None:
    if name not in LAUNCHERS:
        raise InvalidInput("unknown launcher", got=name, expected=" | ".join(LAUNCHERS))
