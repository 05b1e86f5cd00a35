"""What a model answers to every sample of a split."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.recipes.data_source import Split
from tasks.recipes.family import Family

_BATCH: Final = 256


def predict(
    family: Family, model: torch.nn.Module, split: Split, *, device: torch.device | None = None
) -> NDArray[np.float32]:
    """The family's answers for every sample of `split`, in evaluation mode on `device` (the CPU)."""
    tensors = {name: torch.from_numpy(array) for name, array in split.items()}
    samples = len(next(iter(tensors.values())))
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        parts = [
            family.answers(model, {name: tensor[start : start + _BATCH].to(device) for name, tensor in tensors.items()})
            for start in range(0, samples, _BATCH)
        ]
    model.train(was_training)
    return np.concatenate([part.float().cpu().numpy() for part in parts])
