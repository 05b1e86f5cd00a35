"""The same bits from the same inputs, on one machine, whatever its number of cores."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible_torch() -> Iterator[None]:
    """One thread and deterministic kernels while the block runs; the process gets its settings back.

    One thread also because models here are small: two that contend with other processes take four times as long.
    """
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
