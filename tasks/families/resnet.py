"""A residual network (He et al., 2015) for small images.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from serving.errors import InvalidInput


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetConfig:
    """Stages of basic blocks; every stage after the first halves height and width."""

    channels: int = 1
    """Of the input: 1 grey, 3 colour."""
    size: int = 8
    """Height and width of the input, pixels."""
    classes: int = 10
    widths: tuple[int, ...] = (32, 64)
    """Channels of each stage."""
    blocks: int = 2
    """Basic blocks per stage."""

    def __post_init__(self) -> None:
        if not self.widths or min(*self.widths, self.blocks, self.channels, self.classes) < 1:
            raise InvalidInput("ResNetConfig is not usable", got=asdict(self), expected="positive sizes")
        if self.size >> (len(self.widths) - 1) < 1:
            raise InvalidInput("too many stages for the image", got=len(self.widths), expected=f"size {self.size}")


class ResNet(nn.Module):
    """Stem, stages of residual blocks, global average, one linear layer: x_BCHW -> logits_BK."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.stem = _convolution(config.channels, config.widths[0], stride=1)
        blocks: list[nn.Module] = []
        width = config.widths[0]
        for stage, wanted in enumerate(config.widths):
            for block in range(config.blocks):
                blocks.append(ResidualBlock(width, wanted, stride=2 if stage and not block else 1))
                width = wanted
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, config.classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.blocks(torch.relu(self.stem(x_BCHW)))
        logits_BK: Tensor = self.head(x_BCHW.mean(dim=(2, 3)))
        return logits_BK


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; a 1x1 convolution fits the shortcut where shapes change."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, stride=stride)
        self.second = _convolution(outputs, outputs, stride=1)
        fits = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if fits else _convolution(inputs, outputs, stride=stride, kernel=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        residual_BCHW = self.second(torch.relu(self.first(x_BCHW)))
        return torch.relu(residual_BCHW + self.shortcut(x_BCHW))


def _convolution(inputs: int, outputs: int, *, stride: int, kernel: int = 3) -> nn.Sequential:
    """Convolution and batch norm; export folds the norm into the kernel."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


def describe(config: ResNetConfig) -> dict[str, Any]:
    """Plain JSON of the configuration."""
    return {"architecture": "resnet", **asdict(config), "widths": list(config.widths)}
