"""Brings one bundle from a store into a folder that a model server reads: what a pod's first container runs.

    python -m serving.fetch_bundle --uri s3://store --digest sha256:… --target /bundle \\
        --variant NAME --entry-link /bundle/.entry

The digest names the content, and every file is checked against the manifest that has this digest. With
`--keys FOLDER` the attestation must besides be signed by a key in `FOLDER/trusted/`. The manifest comes last,
so a container that is started again takes a whole bundle as it is, goes on with half of one and mends a rotten one.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.bundle import INCOMING, Manifest
from serving.copying import CopyLimits, Pace, accept_any, accept_signed, bring_bundle
from serving.errors import FlightpathError
from serving.files import make_folders
from serving.store import ArtifactStore


def fetch_bundle(uri: str, digest: str, target: Path, *, keys: Path | None = None) -> Manifest:
    """Make the bundle present in `target`, which may be a mount point and so is never renamed.

    Raises:
        NotFound: the store has no such bundle.
        CorruptBundle: a file differs from its manifest, or the manifest from the digest.
        UntrustedBundle: `keys` are given and none of them has signed the attestation.
        RetryableError: the store cannot be reached, or the disk is full.
    """
    make_folders(target)
    limits = CopyLimits()
    return bring_bundle(
        digest,
        target,
        sources=[ArtifactStore(uri).bundle(digest)],
        staging=target / INCOMING,
        limits=limits,
        pace=Pace(limits.bytes_per_s),
        accept=accept_any if keys is None else accept_signed(keys),
    ).manifest


def link_entry(folder: Path, manifest: Manifest, variant: str, link: Path) -> None:
    """`link` points to the variant's file or folder from now on; raises InvalidInput for an unknown variant."""
    entry = folder / manifest.variant(variant).entry
    new = link.with_name(f"{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(entry)
    new.replace(link)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m serving.fetch_bundle", description="Fetch and verify a bundle.")
    parser.add_argument("--uri", required=True, help="store: file://, s3://, gs://, az://")
    parser.add_argument("--digest", required=True, help="sha256:<64 hex digits>")
    parser.add_argument("--target", type=Path, required=True, help="folder for the bundle")
    parser.add_argument("--variant", default="", help="variant that will be served")
    parser.add_argument("--entry-link", type=Path, default=None, help="link to make to the variant's entry")
    parser.add_argument("--keys", type=Path, default=None, help="folder with trusted/*.pem")
    given = parser.parse_args(arguments)
    try:
        manifest = fetch_bundle(given.uri, given.digest, given.target, keys=given.keys)
        if given.variant and given.entry_link is not None:
            link_entry(given.target, manifest, given.variant, given.entry_link)
    except (FlightpathError, OSError) as failed:
        print(f"flightpath: {failed}", file=sys.stderr)
        return 1
    print(f"flightpath: bundle {given.digest} is in {given.target}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
