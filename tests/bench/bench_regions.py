"""What a region's copies cost, and how long its users meet what is bad: copies, lag, rollback without home, SIGSTOP.

    python -m tests.bench.bench_regions [copies lag distance rollback replacement]

Copies: peers in the same rounds, on the same disk: `cp` and then `sha256sum`, which is what the copy promises without
being durable, and the same with the copy synced before it is read; over a distance, `rclone copy`. Writes
`build/bench/regions.json` and exits 1 if a bound is not met.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from serving.store import ArtifactStore, bundle_path
from tests.bench.regions_copies import copy, measure_distance, measure_lag
from tests.bench.regions_failures import measure_replacements, measure_rollbacks
from tests.bench.targets import Target, finish, hardware, is_quiet, judge
from tests.fakes.bundles import make_bundle

ROUNDS: Final = 5
FILES: Final = 4
SIZE_BYTES: Final = 1 << 30
LEAST_RATIO: Final = 0.8
MOST_MEMORY_MB: Final = 200


def make_store(root: Path) -> tuple[ArtifactStore, str]:
    """A bundle of random bytes in a store on this disk."""
    part = SIZE_BYTES // FILES
    digest = make_bundle(root / "made", root / "keys", {f"part-{n}.bin": os.urandom(part) for n in range(FILES)})
    store = ArtifactStore((root / "store").as_uri())
    store.put_bundle(root / "made")
    shutil.rmtree(root / "made")
    return store, digest


def shell(script: str, source: Path, target: Path) -> None:
    subprocess.run(["sh", "-ec", script, "sh", str(source), str(target)], check=True, stdout=subprocess.DEVNULL)


def seconds(run: Callable[[Path], None], root: Path) -> float:
    """Of one copy into a folder that is not there; what earlier ones wrote is on the disk before."""
    target = root / "copy"
    os.sync()
    started = time.perf_counter()
    run(target)
    taken = time.perf_counter() - started
    shutil.rmtree(target)
    return taken


def compare(store: ArtifactStore, digest: str, root: Path) -> list[Target]:
    source = root / "store" / bundle_path(digest)
    ways: dict[str, Callable[[Path], None]] = {
        "replication": lambda target: copy(store, digest, target),
        "cp, sha256sum": lambda target: shell('cp -r "$1" "$2"; sha256sum "$2"/*', source, target),
        "cp, sync, sha256sum": lambda target: shell('cp -r "$1" "$2"; sync "$2"/*; sha256sum "$2"/*', source, target),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        order = list(ways) if number % 2 == 0 else list(reversed(ways))
        for name in order:
            taken[name].append(seconds(ways[name], root))
    ours, plain, durable = (statistics.median(taken[name]) for name in ways)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    note = f"{SIZE_BYTES >> 20} MiB in {FILES} files, median of {ROUNDS} interleaved rounds"
    return [
        judge("speed over cp, sha256sum", plain / ours, bound=LEAST_RATIO, unit="x", note=note, at_least=True),
        judge("speed over cp, sync, sha256sum", durable / ours, bound=LEAST_RATIO, unit="x", note=note, at_least=True),
        *(judge(name, statistics.median(taken[name]), bound=None, unit="s", note=note) for name in ways),
        judge("memory of the copying process", memory, bound=MOST_MEMORY_MB, unit="MB", note="largest, all of Python"),
    ]


def measure_copies(root: Path) -> list[Target]:
    # In a process of its own: making a bundle of this size takes memory that copying does not.
    with ProcessPoolExecutor(max_workers=1) as maker:
        store, digest = maker.submit(make_store, root).result()
    return compare(store, digest, root)


def main() -> int:
    machine, judged = hardware(), is_quiet()
    parts: dict[str, Callable[[Path], list[Target]]] = {
        "copies": measure_copies,
        "lag": lambda root: measure_lag(root, judged=judged),
        "distance": measure_distance,
        "rollback": lambda root: measure_rollbacks(root, judged=judged),
        "replacement": measure_replacements,
    }
    targets: list[Target] = []
    for name in sys.argv[1:] or parts:
        with tempfile.TemporaryDirectory() as folder:
            targets += parts[name](Path(folder).resolve())
    return finish("regions", machine, targets)


if __name__ == "__main__":
    sys.exit(main())
