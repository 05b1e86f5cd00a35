"""Figures as inline SVG, for pages that must open anywhere with nothing beside them.

matplotlib is used without pyplot: no window system, no global state, and the same figure gives the
same text.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(kw_only=True, slots=True)
class Drawing:
    """A figure while it is drawn; `svg` is filled when the block of `drawing` ends."""

    axes: "list[Axes]"
    svg: str = field(default="")


@contextmanager
def drawing(*, width: float, height: float, columns: int = 1) -> Iterator[Drawing]:
    """Axes side by side in a figure of `width` x `height` inches."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "flightpath"}
    ):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        drawn = Drawing(axes=list(figure.subplots(1, columns, squeeze=False)[0]))
        yield drawn
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    drawn.svg = text[text.index("<svg") :]
