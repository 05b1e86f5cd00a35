"""AWS as moto emulates it, in a process of its own on loopback: for Terraform, boto3 and fsspec alike.

    with MotoServer(tmp_path / "moto.log") as aws:
        s3 = aws.client("s3")
        subprocess.run(command, env={**os.environ, **aws.environment})

What moto takes for granted is not proven by it: it copies no object under replication, its health checks are always
well, and it checks no permission. docs/infra-proof.md says what that leaves open.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import boto3
import httpx
from botocore.config import Config

from tests.fakes.models import end_process, wait_until_ready
from tests.fakes.ports import free_port

ACCOUNT = "123456789012"
"""moto's own account."""


class MotoServer:
    """One emulated AWS with every region in it. Use `with`; what it holds ends with it."""

    def __init__(self, log: Path, *, port: int | None = None) -> None:
        self.port = port or free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What the SDKs, Terraform's provider and its S3 backend read; the credentials are moto's, and nobody's."""
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_SESSION_TOKEN": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1",
        }

    def client(self, service: str, region: str = "us-east-1") -> Any:
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.endpoint,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=Config(s3={"addressing_style": "path"}, proxies={}, retries={"max_attempts": 2}),
        )

    def forget(self) -> None:
        """Empties every region, as if it had just started."""
        httpx.post(f"{self.endpoint}/moto-api/reset", timeout=60, trust_env=False).raise_for_status()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """With the managed policies of AWS, which Terraform modules attach by name."""
        settings = {"MOTO_IAM_LOAD_MANAGED_POLICIES": "true", "MOTO_ACCOUNT_ID": ACCOUNT}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOTO_"))}
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                env={**inherited, **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until_ready(f"{self.endpoint}/moto-api/data.json", self._process)

    def end(self) -> None:
        if self._process is not None:
            end_process(self._process)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
