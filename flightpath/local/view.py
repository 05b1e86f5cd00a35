"""What a person sees while a release runs: a live table on a terminal, plain lines elsewhere."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

STAGES = ("plan", "data", "training", "evaluation", "compression", "bundle", "promotion", "report")


@dataclass(frozen=True, slots=True)
class Progress:
    """One announcement of a stage (`tasks/progress.py`)."""

    time: float
    stage: str
    message: str
    figures: dict[str, Any]

    @property
    def shown_figures(self) -> str:
        return "  ".join(f"{name} {_shown(value)}" for name, value in self.figures.items())


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class ProgressFile:
    """Reads the announcements that were appended since the last look; a half-written line waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def news(self) -> Iterator[Progress]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                raw = json.loads(line)
                yield Progress(raw["time"], raw["stage"], raw["message"], raw["figures"])


@dataclass(slots=True)
class StageState:
    began: float
    last: Progress
    ended: float | None = None


@dataclass(slots=True)
class ReleaseView:
    """The state of every stage; renders itself as a table."""

    name: str
    """Of the release."""
    began: float = field(default_factory=time.time)
    stages: dict[str, StageState] = field(default_factory=dict)
    regions: dict[str, str] = field(default_factory=dict)
    traffic: str = ""

    def take(self, news: Progress) -> None:
        """Note one announcement; a stage ends when a later one speaks."""
        for name, stage in self.stages.items():
            if name != news.stage and stage.ended is None:
                stage.ended = news.time
        known = self.stages.get(news.stage)
        if known is None:
            self.stages[news.stage] = StageState(began=news.time, last=news)
        else:
            known.last, known.ended = news, None
        if news.stage == "promotion":
            region, _, state = news.message.partition(" ")
            self.regions[region] = f"{state}  {news.shown_figures}"

    def render(self) -> RenderableType:
        now = time.time()
        table = Table(
            title=f"flightpath  release {self.name}   {now - self.began:.0f} s", title_justify="left", expand=True
        )
        table.add_column("stage", width=12)
        table.add_column("elapsed", justify="right", width=9)
        table.add_column("now", ratio=1, overflow="ellipsis", no_wrap=True)
        for name in STAGES:
            stage = self.stages.get(name)
            if stage is None:
                table.add_row(Text(name, style="dim"), "", "")
                continue
            style = "green" if stage.ended else "bold yellow"
            elapsed = f"{(stage.ended or now) - stage.began:.1f} s"
            table.add_row(Text(name, style=style), elapsed, f"{stage.last.message}  {stage.last.shown_figures}")
            if name == "promotion":
                for region, state in self.regions.items():
                    table.add_row("", "", f"  {region:<14}{state}")
        return Group(table, Text(self.traffic, style="cyan"))


class Screen:
    """Shows the views of one or more releases: live on a terminal, line by line elsewhere."""

    def __init__(self, console: Console, views: list[ReleaseView]) -> None:
        self._views = views
        self._console = console
        self._live = (
            Live(console=console, refresh_per_second=5, get_renderable=self._render) if console.is_terminal else None
        )

    def _render(self) -> RenderableType:
        return Group(*(view.render() for view in self._views))

    def __enter__(self) -> "Screen":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def take(self, view: ReleaseView, news: Progress) -> None:
        """Note one announcement of a release."""
        view.take(news)
        if self._live is None:
            name = f"{view.name}  " if len(self._views) > 1 else ""
            elapsed = news.time - self._views[0].began
            line = f"{elapsed:6.1f} s  {name}{news.stage:<12} {news.message}  {news.shown_figures}".rstrip()
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
