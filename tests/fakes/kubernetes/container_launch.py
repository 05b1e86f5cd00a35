"""From a container's spec to a command of this machine: image, environment, words, folders."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.kubernetes.client import Client
from tests.fakes.kubernetes.container_environment import expand, resolve_environment
from tests.fakes.kubernetes.container_files import PodFiles, path_rewriter
from tests.fakes.kubernetes.containers import ContainerState, Launch
from tests.fakes.kubernetes.images import Registry
from tests.fakes.kubernetes.local_network import LocalNetwork, hostname_of
from tests.fakes.kubernetes.probes import Prober

Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What all Pods of a kubelet share."""

    client: Client
    network: LocalNetwork
    images: Registry
    root: Path
    time_scale: float
    """Factor on probe periods and back-offs; grace periods stay as they are."""


class Launcher:
    """Makes the containers of one Pod ready to start."""

    def __init__(self, machine: Machine, pod: Object) -> None:
        self._machine = machine
        self._pod = pod
        self.folder: Path = machine.root / "pods" / str(pod["metadata"]["uid"])
        self._files = PodFiles(root=self.folder, shared=machine.root / "shared")

    async def prepare(self) -> None:
        """The Pod's volumes; `NotConfigured` while one of them lacks something."""
        await self._files.prepare(self._machine.client, self._pod)

    def log_path(self, container: str) -> Path:
        return self.folder / "logs" / f"{container}.log"

    async def launch(self, container: Object) -> Launch:
        """`ImagePullFailed`, `NotConfigured` or OSError tell why it cannot start."""
        machine, name = self._machine, str(container["name"])
        image = machine.images.pull(container["image"])
        own = {
            "PATH": image.search_path(),
            "HOME": str(self.folder),
            "HOSTNAME": hostname_of(self._pod),
            "LANG": "C.UTF-8",
            **image.environment,
        }
        named = await resolve_environment(machine.client, self._pod, container)
        rewrite = self._path_rewriter(container)
        local = machine.network.rewrite_environment(self._pod, named)
        command = self._local(container.get("command") or [], container, named)
        arguments = self._local(container.get("args") or [], container, named)
        folder = image.folder or self.folder / "work" / name
        return Launch(
            argv=image.argv(command, arguments),
            environment=own | {key: rewrite(value) for key, value in local.items()},
            folder=Path(rewrite(container["workingDir"])) if container.get("workingDir") else folder,
            log=self.log_path(name),
            message=self._message_path(container),
        )

    def prober(self, container: Object, state: ContainerState) -> Prober:
        return Prober(
            state=state,
            local_port=lambda port: self._machine.network.port_of(self._pod, port),
            rewrite=lambda words: self._local(words, container, state.environment),
            time_scale=self._machine.time_scale,
        )

    def _message_path(self, container: Object) -> Path:
        return self.folder / "messages" / str(container["name"])

    def _path_rewriter(self, container: Object) -> Callable[[str], str]:
        message = self._message_path(container)
        message.parent.mkdir(parents=True, exist_ok=True)
        told_in = container.get("terminationMessagePath", "/dev/termination-log")
        return path_rewriter({**self._files.mounts(container), told_in: message})

    def _local(self, words: list[str], container: Object, environment: dict[str, str]) -> list[str]:
        """Words with their references replaced, and with this machine's addresses, ports and paths."""
        rewrite = self._path_rewriter(container)
        expanded = [expand(word, environment) for word in words]
        return [rewrite(word) for word in self._machine.network.rewrite_words(self._pod, expanded, environment)]
