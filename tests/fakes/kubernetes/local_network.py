"""Cluster names and ports on one machine: the process kubelet has no DNS and all its Pods share 127.0.0.1.

So it rewrites. A name of a Pod or Service in an environment value or an argument becomes 127.0.0.1; each port of each
Pod gets a free local port of its own. A port is known by `name:port`, by a variable X_PORT beside an X_ADDR or
X_HOST, and by the ports that the container declares (in an argument, or in a variable whose name ends in PORT).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.fakes.kubernetes.selection import by_labels
from tests.fakes.ports import free_port

Object = dict[str, Any]
Host = tuple[str, str]
"""(namespace, hostname of a Pod)."""

LOOPBACK: Final = "127.0.0.1"
_EVERY_ADDRESS: Final = "0.0.0.0"
"""What servers in Pods listen on: of this machine it is the loopback alone."""
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_NAME: Final = re.compile(
    rf"(?P<before>//|@)?(?<![\w.-])(?P<name>{_LABEL}(?:\.{_LABEL})*)(?::(?P<port>\d{{1,5}}))?(?![\w.-])"
)
_ADDRESS: Final = re.compile(r"^(?P<prefix>.*)_?(?:ADDR|ADDRESS|HOST|HOSTNAME)$")
_SUFFIXES: Final = (".svc.cluster.local", ".svc")


def hostname_of(pod: Object) -> str:
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])


def declared_ports(pod: Object) -> frozenset[int]:
    """Ports that the Pod's containers name, in `ports`, probes and hooks."""
    found: set[int] = set()
    for container in pod["spec"].get("containers") or []:
        found |= {port["containerPort"] for port in container.get("ports") or []}
        hooks = [(container.get("lifecycle") or {}).get("preStop") or {}]
        probes = [container.get(name) or {} for name in ("startupProbe", "readinessProbe", "livenessProbe")]
        for each in [*hooks, *probes]:
            for action in ("httpGet", "tcpSocket"):
                port = (each.get(action) or {}).get("port")
                found |= {port} if isinstance(port, int) else set()
    return frozenset(found)


def named_port(pod: Object, port: int | str) -> int:
    """The number of a port that may be given by name; LookupError for an unknown name."""
    if isinstance(port, int):
        return port
    for container in pod["spec"].get("containers") or []:
        for each in container.get("ports") or []:
            if each.get("name") == port:
                return int(each["containerPort"])
    raise LookupError(f"port must be a port name of pod {pod['metadata']['name']}, got {port!r}")


@dataclass(slots=True)
class LocalNetwork:
    """The name service and the port table of one kubelet."""

    services: Callable[[], Mapping[tuple[str, str], Object]]
    pods: Callable[[], Mapping[tuple[str, str], Object]]
    ports: dict[tuple[str, str, int], int]

    def local_port(self, host: Host, port: int) -> int:
        """Always the same one for one port of one hostname."""
        key = (*host, port)
        if key not in self.ports:
            self.ports[key] = free_port()
        return self.ports[key]

    def port_of(self, pod: Object, port: int | str) -> int:
        host = (pod["metadata"]["namespace"], hostname_of(pod))
        return self.local_port(host, named_port(pod, port))

    def resolve(self, name: str, namespace: str, *, certain: bool) -> tuple[Host, Object | None] | None:
        """The Pod's hostname behind a name, and the Service if it was one's; None for names that are not ours.

        `certain`: something around a bare word says that it is a host."""
        short = next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), None)
        labels = (short or name).split(".")
        services = self.services()
        if len(labels) in (2, 3):
            host, subdomain, place = [*labels, namespace][:3]
            if (place, subdomain) in services:
                return (place, host), None
        if len(labels) <= 2 and (certain or short or len(labels) == 2):
            service = services.get(([*labels, namespace][1], labels[0]))
            if service is not None:
                return self._backend(service), service
        return ((labels[2], labels[0]), None) if short and len(labels) == 3 else None

    def _backend(self, service: Object) -> Host:
        """The first Pod by name that a Service selects; the Service's own name while there is none."""
        namespace = service["metadata"]["namespace"]
        chosen = self.selected(service)
        return (namespace, hostname_of(chosen[0]) if chosen else service["metadata"]["name"])

    def selected(self, service: Object) -> list[Object]:
        """The Pods of a Service in the order of their names."""
        selector = service["spec"].get("selector")
        if not selector:
            return []
        matches = by_labels(",".join(f"{key}={value}" for key, value in selector.items()))
        namespace = service["metadata"]["namespace"]
        pods = self.pods().items()
        return [
            pod
            for (place, _), pod in sorted(pods)
            if place == namespace and matches(pod["metadata"].get("labels") or {})
        ]

    def target_port(self, service: Object, port: int, pod: Object) -> int:
        """The Pod's port behind a Service's port."""
        for each in service["spec"].get("ports") or []:
            if each["port"] == port:
                return named_port(pod, each.get("targetPort", port))
        return port

    def _rewrite_name(self, found: "re.Match[str]", namespace: str) -> str:
        before, port = found["before"] or "", found["port"]
        resolved = self.resolve(found["name"], namespace, certain=bool(before or port))
        if resolved is None:
            return found[0]
        if port is None:
            return before + LOOPBACK
        host, service = resolved
        number = int(port)
        chosen = self.selected(service) if service is not None else []
        if service is not None and chosen:
            number = self.target_port(service, number, chosen[0])
        return f"{before}{LOOPBACK}:{self.local_port(host, number)}"

    def rewrite_environment(self, pod: Object, environment: Mapping[str, str]) -> dict[str, str]:
        namespace, declared = pod["metadata"]["namespace"], declared_ports(pod)
        paired = self._paired_ports(namespace, environment)
        rewritten = {}
        for name, value in environment.items():
            if name in paired:
                rewritten[name] = str(paired[name])
            elif name.endswith("PORT") and value.isdecimal() and int(value) in declared:
                rewritten[name] = str(self.port_of(pod, int(value)))
            else:
                rewritten[name] = _NAME.sub(lambda found: self._rewrite_name(found, namespace), value)
        return rewritten

    def _paired_ports(self, namespace: str, environment: Mapping[str, str]) -> dict[str, int]:
        """Local ports of variables X_PORT whose X_ADDR names a host."""
        paired = {}
        for name, value in environment.items():
            match = _ADDRESS.match(name)
            other = f"{match['prefix'].rstrip('_')}_PORT".lstrip("_") if match else ""
            port = environment.get(other, "")
            if port.isdecimal() and (resolved := self.resolve(value, namespace, certain=True)):
                paired[other] = self.local_port(resolved[0], int(port))
        return paired

    def rewrite_words(self, pod: Object, words: list[str], environment: Mapping[str, str]) -> list[str]:
        """`environment` as it was before rewriting: ports that it pairs with a host are that host's in words too."""
        namespace = pod["metadata"]["namespace"]
        paired = self._paired_ports(namespace, environment)
        ports = {str(port): self.port_of(pod, port) for port in declared_ports(pod)}
        ports |= {environment[name]: local for name, local in paired.items()}

        def rewrite(word: str) -> str:
            option, equals, value = word.rpartition("=")
            if value == _EVERY_ADDRESS:
                return f"{option}{equals}{LOOPBACK}"
            if value in ports and (not equals or option.startswith("-")):
                return f"{option}{equals}{ports[value]}"
            return _NAME.sub(lambda found: self._rewrite_name(found, namespace), word)

        return [rewrite(word) for word in words]
