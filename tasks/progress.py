"""Progress of a run, from any stage, for whoever watches.

With FLIGHTPATH_PROGRESS_FILE set, each call appends one JSON line there (the demo's live view reads
it); otherwise a plain line goes to stderr.
"""

import json
import os
import sys
import time


def announce(stage: str, message: str, **figures: float | int | str) -> None:
    """Say where `stage` is; figures are shown as `name value`."""
    path = os.environ.get("FLIGHTPATH_PROGRESS_FILE")
    if path:
        line = json.dumps({"time": time.time(), "stage": stage, "message": message, "figures": figures})
        # One write of one line with O_APPEND: lines of several processes never mix.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)
        return
    shown = "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()
    )
    print(f"{time.strftime('%H:%M:%S')}  {stage:<12} {message}  {shown}".rstrip(), file=sys.stderr, flush=True)
