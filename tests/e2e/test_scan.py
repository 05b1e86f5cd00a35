"""The scanner that `make scan` runs finds what it is there for, and takes a reason for an answer."""

import subprocess
from pathlib import Path

import pytest

CHECKOV = Path(__file__).resolve().parents[2] / "build" / "checkov" / "bin" / "checkov"
pytestmark = pytest.mark.skipif(not CHECKOV.is_file(), reason="make scan installs the scanner on its first call")

OPEN = """
resource "aws_security_group" "open" {{
  {skip}
  name        = "open"
  description = "open"
  ingress {{
    description = "ssh"
    from_port   = 22
    to_port     = 22
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
  }}
}}
"""


def scan(folder: Path, skip: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "main.tf").write_text(OPEN.format(skip=skip))
    command = [str(CHECKOV), "-d", str(folder), "--framework", "terraform", "--compact", "--quiet", "--skip-download"]
    return subprocess.run([*command, "--check", "CKV_AWS_24"], capture_output=True, text=True, timeout=120, check=False)


def test_an_open_port_fails_the_scan_unless_it_says_why(tmp_path: Path) -> None:
    found = scan(tmp_path)
    assert found.returncode == 1
    assert "FAILED for resource: aws_security_group.open" in found.stdout
    accepted = scan(tmp_path, "#checkov:skip=CKV_AWS_24:a honeypot")
    assert accepted.returncode == 0, accepted.stdout
    assert "Skipped checks: 1" in accepted.stdout
