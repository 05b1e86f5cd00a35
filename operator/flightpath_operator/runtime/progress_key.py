"""The key behind the workers' tokens: from a mounted file, else from a Secret of the operator's own."""

import base64
import os
from pathlib import Path
from typing import Final

from flightpath_operator.plan import Object
from flightpath_operator.runtime.client import Client
from flightpath_operator.runtime.errors import Exists, NotFound
from flightpath_operator.runtime.resources import Resource

SECRET: Final = "flightpath-operator-progress"
_RESOURCE: Final = Resource("v1", "Secret", "secrets")
_BYTES: Final = 32


async def load_progress_key(client: Client, file: Path, namespace: str) -> bytes:
    """Raises ValueError for a key that is too short, ApiError when the Secret can neither be read nor made."""
    if file.is_file():
        return _checked(file.read_bytes().strip(), str(file))
    try:
        secret = await client.get(_RESOURCE, SECRET, namespace)
    except NotFound:
        secret = await _create(client, namespace)
    return _checked(base64.b64decode(secret["data"]["key"]), f"Secret {namespace}/{SECRET}")


async def _create(client: Client, namespace: str) -> Object:
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": namespace},
        "type": "Opaque",
        "data": {"key": base64.b64encode(os.urandom(_BYTES)).decode()},
    }
    try:
        return await client.create(_RESOURCE, body)
    except Exists:
        return await client.get(_RESOURCE, SECRET, namespace)


def _checked(key: bytes, where: str) -> bytes:
    if len(key) < _BYTES:
        raise ValueError(f"progress key must have at least {_BYTES} bytes, got {len(key)} in {where}")
    return key
