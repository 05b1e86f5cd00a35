"""The repository's own Prometheus, Alertmanager and probe configuration, run by Debian's binaries on loopback.

Changed in the copies, and nothing else: discovery by Kubernetes becomes static targets (Debian builds Prometheus
without it), mTLS to pods becomes HTTP, paths lie in the test's folder, intervals are one second.
"""

import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from infra.observability.files import FOLDER, render, rule_files
from tests.fakes.models import end_process, wait_until_ready
from tests.fakes.ports import free_port

PROGRAMS = ("prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter")
Targets = Mapping[str, Sequence[Mapping[str, Any]]]
"""Static configurations by job; `__metrics_path__` among the labels where it is not /metrics."""


def missing_programs() -> list[str]:
    return [program for program in PROGRAMS if shutil.which(program) is None]


class Server:
    """One of the binaries, in a folder of its own. Use `with`."""

    def __init__(self, folder: Path, program: str, *flags: str, ready: str, **environment: str) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self._command = [program, f"--web.listen-address={self.address}", *flags]
        self._ready = ready
        self._environment = environment
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def __enter__(self) -> Self:
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env={**os.environ, **self._environment}, cwd=self.folder, stdout=log, stderr=log
            )
        wait_until_ready(f"http://{self.address}{self._ready}", self._process)
        return self

    def __exit__(self, *_: object) -> None:
        end_process(self._process)

    def get(self, path: str, **query: str) -> Any:
        """The JSON that the server answers."""
        url = f"http://{self.address}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.loads(response.read())


class Alertmanager(Server):
    def __init__(self, folder: Path) -> None:
        flags = [f"--config.file={FOLDER / 'alertmanager/alertmanager.yml'}", f"--storage.path={folder}"]
        super().__init__(folder, PROGRAMS[1], *flags, "--cluster.listen-address=", ready="/-/ready")

    def alerts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/api/v2/alerts")
        return found


class BlackboxExporter(Server):
    def __init__(self, folder: Path) -> None:
        flag = f"--config.file={FOLDER / 'blackbox/blackbox.yml'}"
        super().__init__(folder, PROGRAMS[2], flag, ready="/-/healthy")


class Prometheus(Server):
    """`kind` is region or global; the rules are copies of the repository's."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        *,
        name: str,
        targets: Targets,
        files: Mapping[str, Any],
        alertmanager: str,
        blackbox: str = "",
        prices: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            folder,
            PROGRAMS[0],
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--enable-feature=expand-external-labels",
            ready="/-/ready",
            FLIGHTPATH_REGION=name,
        )
        _copy_rules(folder, kind)
        self.write("prices/prices.yml", render(prices or {"groups": []}))
        for file, content in files.items():
            self.write(f"targets/{file}", json.dumps(content))
        document = yaml.safe_load(
            (FOLDER / f"prometheus/{kind}/{kind}.yml").read_text().replace("/etc/prometheus", str(folder))
        )
        document["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"}
        document["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        here = {"prometheus": [{"targets": [self.address]}], "alertmanager": [{"targets": [alertmanager]}]}
        for job in document["scrape_configs"]:
            _bring_home(job, {**targets, **here}, blackbox)
        self.write("prometheus.yml", yaml.safe_dump(document))

    def write(self, path: str, text: str) -> None:
        """A file of the configuration; Prometheus follows targets by itself."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(target)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector; values that are no numbers are no data."""
        answer = self.get("/api/v1/query", query=expression)
        assert answer["data"]["resultType"] == "vector", expression
        return [found for found in answer["data"]["result"] if found["value"][1] != "NaN"]


def _copy_rules(folder: Path, kind: str) -> None:
    for name, sources in {"rules": [f"rules/{kind}"], "alerts": [f"alerts/{kind}", "alerts/shared"]}.items():
        (folder / name).mkdir(parents=True)
        for path in rule_files(*sources):
            shutil.copy(path, folder / name / path.name)


def _bring_home(job: dict[str, Any], targets: Targets, blackbox: str) -> None:
    """One scrape job, reachable without a cluster."""
    for part in ("scheme", "tls_config", "authorization"):
        job.pop(part, None)
    if job.pop("kubernetes_sd_configs", None) or job["job_name"] in targets:
        job.pop("relabel_configs", None)
        job["static_configs"] = list(targets[job["job_name"]])
    for relabel in job.get("relabel_configs", []):
        if relabel.get("replacement") == "blackbox-exporter:9115":
            relabel["replacement"] = blackbox
