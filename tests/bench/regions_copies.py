"""Copies of bundles for `bench_regions`: small ones, and a large one over 100 ms, beside rclone."""

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from serving.copying import CopyLimits, Pace, bring_bundle
from serving.regions.places.topology import Region
from serving.regions.replication import Replicator
from serving.releases import Release, RuntimeSpec
from serving.store import ArtifactStore, bundle_path
from tests.bench.targets import NOT_MEASURED, Target, judge
from tests.fakes.bundles import VARIANT, make_bundle
from tests.fakes.ports import free_port

SMALL_BUNDLES: Final = 100
SMALL_BYTES: Final = 64 * 1024
LAG_BOUND_MS: Final = 250.0
FAR_BYTES: Final = 256 << 20
FAR_FILES: Final = 4
FAR_ROUNDS: Final = 3
ROUND_TRIP_MS: Final = 100
_KEY, _SECRET = "key", "secret-of-no-worth"


def measure_lag(root: Path, *, judged: bool) -> list[Target]:
    """From a bundle being in the source store to it being verified in the region's folder and store."""
    source = ArtifactStore((root / "source").as_uri())
    place = Region(
        name="away",
        gateway_url="",
        agent_url="",
        store_uri=(root / "away" / "store").as_uri(),
        registry_url="",
        state_folder=root / "away",
    )
    replicator, lags_ms = Replicator(region=place, key_folder=root / "keys"), []
    for number in range(SMALL_BUNDLES):
        made = root / f"made-{number}"
        digest = make_bundle(made, root / "keys", {f"part-{n}.bin": os.urandom(SMALL_BYTES) for n in range(4)})
        source.put_bundle(made)
        runtime = RuntimeSpec(engine="onnxruntime", variant=VARIANT)
        release = Release(
            id=f"r-{number}", model="m", bundle_digest=digest, store_uri=source.canonical_uri, runtime=runtime
        )
        started = time.perf_counter()
        replicator.replicate(release)
        lags_ms.append((time.perf_counter() - started) * 1000)
    p95 = statistics.quantiles(lags_ms, n=20)[-1]
    note = (
        f"{SMALL_BUNDLES} bundles of 256 KiB in 4 files: in the source store to verified here and durable in two places"
    )
    return [
        judge("replication lag, p95", p95, bound=LAG_BOUND_MS, unit="ms", note=note, judged=judged),
        judge("replication lag, median", statistics.median(lags_ms), bound=None, unit="ms", note=note),
    ]


def find_rclone() -> str | None:
    beside = Path(sys.executable).parent / "rclone"
    return str(beside) if beside.exists() else shutil.which("rclone")


def measure_distance(root: Path) -> list[Target]:
    """A large bundle out of an object store that is 100 ms away; rclone as server, and as peer."""
    name, rclone = f"{FAR_BYTES >> 20} MiB over {ROUND_TRIP_MS} ms, speed over rclone", find_rclone()
    if rclone is None:
        why = "rclone is missing: uv pip install --group bench"
        return [Target(name=name, measured=0.0, bound=1.0, unit="x", status=NOT_MEASURED, note=why)]
    part = FAR_BYTES // FAR_FILES
    digest = make_bundle(root / "made", root / "keys", {f"part-{n}.bin": os.urandom(part) for n in range(FAR_FILES)})
    ArtifactStore((root / "served" / "bundles" / "store").as_uri()).put_bundle(root / "made")
    shutil.rmtree(root / "made")
    with _far_store(rclone, root / "served", root) as port:
        environment = _environment(port)
        os.environ |= {name: value for name, value in environment.items() if name.startswith("AWS_")}
        store, taken = ArtifactStore("s3://bundles/store"), {"ours": [], "rclone": []}
        remote = f"far:bundles/store/{bundle_path(digest)}"
        for number in range(FAR_ROUNDS):
            for way in ("ours", "rclone") if number % 2 == 0 else ("rclone", "ours"):
                target = root / "copy"
                os.sync()
                started = time.perf_counter()
                if way == "ours":
                    copy(store, digest, target)
                else:
                    command = [rclone, "copy", "--config", "/dev/null", remote, str(target)]
                    subprocess.run(command, check=True, env={**os.environ, **environment})
                taken[way].append(time.perf_counter() - started)
                assert sum(path.stat().st_size for path in target.rglob("part-*")) == FAR_BYTES
                shutil.rmtree(target)
    ours, theirs = statistics.median(taken["ours"]), statistics.median(taken["rclone"])
    note = f"{FAR_FILES} files, median of {FAR_ROUNDS} interleaved rounds; ours verifies and syncs"
    return [
        judge(name, theirs / ours, bound=1.0, unit="x", note=note, at_least=True),
        judge("replication over the distance", ours, bound=None, unit="s", note=note),
        judge("rclone copy over the distance", theirs, bound=None, unit="s", note=note),
    ]


def copy(store: ArtifactStore, digest: str, target: Path) -> None:
    limits = CopyLimits()
    bring_bundle(
        digest,
        target,
        sources=[store.bundle(digest)],
        staging=target.with_name("incoming"),
        limits=limits,
        pace=Pace(limits.bytes_per_s),
    )


def _environment(port: int) -> dict[str, str]:
    url = f"http://127.0.0.1:{port}"
    aws = {"ACCESS_KEY_ID": _KEY, "SECRET_ACCESS_KEY": _SECRET, "ENDPOINT_URL": url, "DEFAULT_REGION": "us-east-1"}
    far = {"TYPE": "s3", "PROVIDER": "Rclone", "ENDPOINT": url, "ACCESS_KEY_ID": _KEY, "SECRET_ACCESS_KEY": _SECRET}
    return {
        **{f"AWS_{name}": value for name, value in aws.items()},
        **{f"RCLONE_CONFIG_FAR_{name}": value for name, value in far.items()},
    }


@contextlib.contextmanager
def _far_store(rclone: str, folder: Path, root: Path) -> Iterator[int]:
    """The port at which `folder` is an S3 store that is far away."""
    near, far = free_port(), free_port()
    serve = [rclone, "serve", "s3", str(folder), "--config", "/dev/null", "--addr", f"127.0.0.1:{near}"]
    serve += ["--auth-key", f"{_KEY},{_SECRET}"]
    proxy = [sys.executable, "-m", "tests.bench.delaying_proxy", str(far), str(near), str(ROUND_TRIP_MS)]
    with (root / "far.log").open("wb") as log:
        started = [subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) for command in (serve, proxy)]
    try:
        _wait_for(f"http://127.0.0.1:{far}/")
        yield far
    finally:
        for process in started:
            process.kill()
            process.wait()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            # It answers, if only that it does not know us.
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
