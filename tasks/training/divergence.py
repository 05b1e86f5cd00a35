"""When a run stopped being one: the first step whose loss or gradient was not finite."""

import torch


class Divergence:
    """Watches every step and asks nothing of the device until `found`: a GPU never waits for it in between."""

    def __init__(self, device: torch.device) -> None:
        self._gradient = torch.full((), -1, dtype=torch.int64, device=device)
        self._loss = torch.full((), -1, dtype=torch.int64, device=device)

    def watch(self, step: int, loss: torch.Tensor, gradient_norm: torch.Tensor) -> None:
        """Args: the step's number from 0, this worker's loss, and the norm of the gradient that all workers share."""
        self._loss = _first(self._loss, step, loss)
        self._gradient = _first(self._gradient, step, gradient_norm)

    def found(self) -> tuple[int, int] | None:
        """The first step with a gradient that is not finite, and that of this worker's own loss (-1 for none)."""
        step = int(self._gradient)
        return None if step < 0 else (step, int(self._loss))


def _first(known: torch.Tensor, step: int, value: torch.Tensor) -> torch.Tensor:
    return torch.where((known < 0) & ~torch.isfinite(value).all(), step, known)
