"""What a gateway counted lately: counters grow since its boot, and an incident of last week decides nothing today."""

from collections import deque

from serving.counters import Snapshot


class RecentCounts:
    """Readings of each model, one every `sample_s`, as far back as `window_s`."""

    def __init__(self, *, window_s: float, sample_s: float) -> None:
        self._window_s = window_s
        self._sample_s = sample_s
        self._kept: dict[str, deque[tuple[float, Snapshot]]] = {}

    def is_due(self, model: str, now: float) -> bool:
        """Whether it is time for the next reading."""
        kept = self._kept.get(model)
        return not kept or now - kept[-1][0] >= self._sample_s

    def note(self, model: str, stats: Snapshot, now: float) -> None:
        kept = self._kept.setdefault(model, deque())
        if self.is_due(model, now):
            kept.append((now, stats))
        # The one before the window stays while none within it is as old.
        while len(kept) > 1 and now - kept[1][0] >= self._window_s:
            kept.popleft()

    def until(self, model: str, stats: Snapshot) -> Snapshot:
        """What was added up to `stats`, as far back as was noted; nothing for a model that was never noted."""
        kept = self._kept.get(model)
        return stats.since(kept[0][1] if kept else stats)
