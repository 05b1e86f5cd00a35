"""Which number format the forward pass computes in."""

from contextlib import AbstractContextManager, nullcontext

import torch


def forward_precision(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """A context for the forward pass and the loss; the backward pass follows it by itself."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device_type=device.type, dtype=torch.bfloat16)
