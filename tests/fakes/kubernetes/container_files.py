"""A Pod's volumes as local folders, and its paths rewritten to them: processes share the machine's file system.

emptyDir, configMap, secret, hostPath, persistentVolumeClaim (one folder per claim) and nfs (one per server and path)
are there. readOnly is not enforced; the contents of files are not rewritten.
"""

import base64
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.kubernetes.client import Client, path_of

Object = dict[str, Any]


class NotConfigured(Exception):
    """A ConfigMap, Secret or volume that a container needs is missing: CreateContainerConfigError."""


async def read_config(client: Client, namespace: str, plural: str, name: str, *, optional: bool) -> dict[str, str]:
    """Data of a ConfigMap or Secret as text."""
    document = await client.find(path_of("v1", plural, namespace, name))
    if document is None:
        if optional:
            return {}
        raise NotConfigured(f'{plural.removesuffix("s")} "{name}" not found')
    data: dict[str, str] = document.get("data") or {}
    if plural == "secrets":
        return {key: base64.b64decode(value).decode() for key, value in data.items()}
    return data


@dataclass(slots=True)
class PodFiles:
    """The folders of one Pod under `root`; claims and exports live under `shared` and outlive it."""

    root: Path
    shared: Path
    folders: dict[str, Path] = field(default_factory=dict)

    async def prepare(self, client: Client, pod: Object) -> None:
        namespace = pod["metadata"]["namespace"]
        self.root.mkdir(parents=True, exist_ok=True)
        for volume in pod["spec"].get("volumes") or []:
            self.folders[volume["name"]] = await self._folder(client, namespace, volume)

    async def _folder(self, client: Client, namespace: str, volume: Object) -> Path:
        own: Path = self.root / "volumes" / volume["name"]
        if "hostPath" in volume:
            return Path(str(volume["hostPath"]["path"]))
        if "persistentVolumeClaim" in volume:
            own = self.shared / "claims" / namespace / volume["persistentVolumeClaim"]["claimName"]
        elif "nfs" in volume:
            own = self.shared / "nfs" / volume["nfs"]["server"] / volume["nfs"]["path"].strip("/")
        elif not {"emptyDir", "configMap", "secret", "projected"} & volume.keys():
            kinds = sorted(volume.keys() - {"name"})
            raise NotConfigured(f"volume {volume['name']} must be of a kind that the process kubelet has, got {kinds}")
        own.mkdir(parents=True, exist_ok=True)
        for plural, key, name in (("configmaps", "configMap", "name"), ("secrets", "secret", "secretName")):
            if key in volume:
                source = volume[key]
                data = await read_config(client, namespace, plural, source[name], optional=bool(source.get("optional")))
                _write_files(own, data, source.get("items"))
        return own

    def mounts(self, container: Object) -> dict[str, Path]:
        """Folders by mount path."""
        found = {}
        for mount in container.get("volumeMounts") or []:
            folder = self.folders[mount["name"]] / mount.get("subPath", "")
            if not folder.exists():
                folder.mkdir(parents=True)
            found[mount["mountPath"].rstrip("/") or "/"] = folder
        return found

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def _write_files(folder: Path, data: dict[str, str], items: list[Object] | None) -> None:
    chosen = {item["key"]: item["path"] for item in items} if items else {key: key for key in data}
    for key, path in chosen.items():
        if key not in data:
            raise NotConfigured(f"references non-existent config key: {key}")
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(data[key])


def path_rewriter(places: dict[str, Path]) -> Callable[[str], str]:
    """Rewrites every mount path that stands at a word's beginning, after `=`, `:`, `,` or a blank, or in file://."""
    paths = "|".join(re.escape(path) for path in sorted(places, key=len, reverse=True))
    # All at once: the local folder of one mount may itself begin with the path of another (/tmp).
    pattern = re.compile(rf"(?P<before>^|[=:,;\s\"'(\[]|file://)(?P<path>{paths})(?=$|[/:,;\s\"')\]?&])")
    return lambda text: pattern.sub(lambda found: f"{found['before']}{places[found['path']]}", text) if places else text
