"""A PostgreSQL of a test's own: a cluster in its folder, run by an unprivileged user, ended with it.

PostgreSQL refuses to run as root; a root test gives the cluster's folder to `nobody`.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psutil

from tests.fakes.ports import free_port

PASSWORD = "of-the-test"


def postgres_programs() -> Path | None:
    """The folder of initdb and postgres of the newest installed version; Debian keeps them off the PATH."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Postgres:
    """One server on loopback, with a password and no durability shortcuts. Use `with`."""

    def __init__(self) -> None:
        programs = postgres_programs()
        assert programs is not None, "PostgreSQL is missing: apt-get install postgresql"
        self._programs = programs
        # Below the system's own temporary folder: nobody else may enter a test's.
        self._root = Path(tempfile.mkdtemp(prefix="flightpath-postgres-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://flightpath:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> None:
        self._psql(f'CREATE DATABASE "{database}"')

    def drop(self, database: str) -> None:
        self._psql(f'DROP DATABASE "{database}" WITH (FORCE)')

    def _psql(self, statement: str) -> None:
        command = ["psql", "--host=127.0.0.1", f"--port={self.port}", "--username=flightpath", "--dbname=postgres"]
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        command += ["--quiet", f"--command={statement}"]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)

    def __enter__(self) -> Self:
        password = self._root / "password"
        password.write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (self._root, password):
                shutil.chown(path, "nobody", "nogroup")
        data = self._root / "data"
        options = ["--username=flightpath", "--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8"]
        try:
            self._run("initdb", f"--pgdata={data}", "--locale=C", *options)
            self._start(data)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _run(self, program: str, *options: str) -> None:
        done = subprocess.run(
            self._command(program, *options), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _start(self, data: Path) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 40,
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._root / "log").open("wb") as log:
            self._process = subprocess.Popen(self._command("postgres", "-D", str(data), *flags), stdout=log, stderr=log)
        ready = [str(self._programs / "pg_isready"), "--host=127.0.0.1", f"--port={self.port}", "--quiet"]
        for _ in range(300):
            assert self._process.poll() is None, (self._root / "log").read_text()
            if subprocess.run(ready, timeout=10, check=False).returncode == 0:
                return
        raise AssertionError((self._root / "log").read_text())

    def _command(self, program: str, *options: str) -> list[str]:
        command = [str(self._programs / program), *options]
        if os.geteuid() != 0:
            return command
        return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]

    @contextmanager
    def away(self, how: signal.Signals = signal.SIGINT) -> Iterator[None]:
        """Stopped for a while: connections are cut, and new ones are refused.

        SIGQUIT is `pg_ctl stop -m immediate`: the next start recovers from what is on the disk.
        """
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(timeout=60)
        try:
            yield
        finally:
            self._start(self._root / "data")

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Alive and silent for a while, in the midst of whatever it does."""
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        family = [server, *server.children(recursive=True)]
        for process in family:
            process.suspend()
        try:
            yield
        finally:
            for process in family:
                process.resume()

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            # Fast shutdown: sessions are ended, files are closed in order.
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=60)
        shutil.rmtree(self._root, ignore_errors=True)
