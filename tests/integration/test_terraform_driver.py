"""The driver against the real terraform binary, its built-in terraform_data and local state: no plugin, no network."""

import http.server
import json
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from infra.driver import errors
from infra.terraform import Limits, Plan, Progress, Secret, TerraformDriver

pytestmark = pytest.mark.skipif(shutil.which("terraform") is None, reason="needs the terraform binary")

ROOT = Path(__file__).resolve().parents[2]
SECRET = 'hunter2 "quoted" ${not_a_template}'

BASIC = """
variable "name" {
  type    = string
  default = "first"
  validation {
    condition     = length(var.name) < 20
    error_message = "the name has at most 19 characters"
  }
}
variable "sizes" {
  type    = map(number)
  default = {}
}
variable "password" {
  type      = string
  sensitive = true
  default   = "none"
}
resource "terraform_data" "named" { input = var.name }
resource "terraform_data" "sized" { input = var.sizes }
resource "terraform_data" "secret" { input = var.password }
output "name" { value = terraform_data.named.output }
output "sizes" { value = var.sizes }
output "password" {
  value     = var.password
  sensitive = true
}
"""

SLOW = """
variable "marker" { type = string }
variable "command" { type = string }
resource "terraform_data" "before" { input = 1 }
resource "terraform_data" "slow" {
  input      = 1
  depends_on = [terraform_data.before]
  provisioner "local-exec" { command = "echo $$ > ${var.marker}; ${var.command}" }
}
resource "terraform_data" "after" {
  input      = 1
  depends_on = [terraform_data.slow]
}
"""

# Plans and applies in a process of its own, to be killed.
DRIVE = """
import sys
from pathlib import Path
from infra.terraform import TerraformDriver
driver = TerraformDriver(Path(sys.argv[1]))
driver.apply(driver.plan({"marker": sys.argv[2], "command": sys.argv[3]}))
"""


def driver_for(folder: Path, configuration: str, **limits: timedelta) -> TerraformDriver:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.tf").write_text(configuration)
    cli = folder / "cli.tfrc"
    cli.write_text(f'provider_installation {{\n filesystem_mirror {{ path = "{folder / "no-providers"}" }}\n}}\n')
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TF_CLI_CONFIG_FILE": str(cli)}
    return TerraformDriver(folder, environment=environment, limits=Limits(**limits))


@pytest.fixture
def basic(tmp_path: Path) -> TerraformDriver:
    driver = driver_for(tmp_path / "basic", BASIC)
    driver.init()
    return driver


def slow_driver(tmp_path: Path, **limits: timedelta) -> tuple[TerraformDriver, Path]:
    driver = driver_for(tmp_path / "slow", SLOW, **limits)
    driver.init()
    return driver, tmp_path / "marker"


def wait_for(path: Path) -> int:
    """The pid of the provisioner's shell, once it runs."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text().strip()):
            return int(text)
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear within 20 s")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < deadline, f"pid {pid} still runs after 20 s"
        time.sleep(0.02)


def resources(driver: TerraformDriver) -> set[str]:
    state = json.loads((driver.working_dir / "terraform.tfstate").read_text())
    return {f"{item['type']}.{item['name']}" for item in state["resources"] if item["instances"]}


def plans_left(driver: TerraformDriver) -> list[Path]:
    return list((driver.working_dir / ".terraform" / "flightpath").glob("*.tfplan"))


def test_a_plan_is_saved_private_counted_and_applied_once(basic: TerraformDriver) -> None:
    seen: list[Progress] = []
    plan = basic.plan({"name": "one", "sizes": {"a": 1.5, "b": 2}}, on_progress=seen.append)
    assert (plan.summary.adds, plan.summary.changes, plan.summary.destroys, plan.summary.replaces) == (3, 0, 0, 0)
    assert plan.has_changes
    assert stat.S_IMODE(plan.path.stat().st_mode) == 0o600
    assert {event.address for event in seen if event.kind == "planned_change"} == {c.address for c in plan.changes}

    applied = basic.apply(plan, on_progress=seen.append)
    assert set(applied.done) == {"terraform_data.named", "terraform_data.sized", "terraform_data.secret"}
    assert [event.action for event in seen if event.kind == "apply_complete"] == ["create"] * 3
    assert not plan.path.exists()
    assert basic.output()["sizes"].value == {"a": 1.5, "b": 2}
    with pytest.raises(errors.StalePlan, match="gone"):
        basic.apply(plan)


def test_a_second_plan_is_clean_and_a_change_names_its_attribute(basic: TerraformDriver) -> None:
    basic.apply(basic.plan({"name": "one"}))
    clean = basic.plan({"name": "one"})
    assert not clean.has_changes
    assert clean.changes == ()
    changed = basic.plan({"name": "two"})
    assert changed.summary.changes == 1
    (change,) = changed.changes
    (named,) = [item for item in change.attributes if item.name == "input"]
    assert (change.action, named.before, named.after) == ("update", "one", "two")


def test_targets_limit_the_plan(basic: TerraformDriver) -> None:
    plan = basic.plan(targets=["terraform_data.named"])
    assert [change.address for change in plan.changes] == ["terraform_data.named"]


def test_secrets_reach_no_log_no_plan_text_no_output_text(
    basic: TerraformDriver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[Progress] = []
    plan = basic.plan({"password": Secret(SECRET)}, on_progress=seen.append)
    basic.apply(plan, on_progress=seen.append)
    later = basic.plan({"password": Secret("swordfish")})
    outputs = basic.output()
    assert outputs["password"].value.reveal() == SECRET
    assert outputs["password"].sensitive
    shown = f"{caplog.text}{seen}{plan}{later}{outputs}"
    assert "terraform_data.secret" in shown
    assert "hunter2" not in shown
    assert "swordfish" not in shown


def test_a_secret_that_a_provisioner_prints_is_struck_from_error_and_progress(tmp_path: Path) -> None:
    text = """
    resource "terraform_data" "leak" {
      provisioner "local-exec" { command = "echo the password is $LEAK >&2; exit 4" }
    }
    """
    driver = driver_for(tmp_path / "leak", text)
    driver.init()
    seen: list[Progress] = []
    with pytest.raises(errors.ApplyFailed) as caught:
        driver.apply(driver.plan(), environment={"LEAK": "x", "DB_PASSWORD": "x9y8z7"}, on_progress=seen.append)
    assert "the password is x" in str(caught.value)
    with pytest.raises(errors.ApplyFailed) as caught:
        driver.apply(driver.plan(), environment={"LEAK": "x9y8z7", "DB_PASSWORD": "x9y8z7"}, on_progress=seen.append)
    assert "the password is (sensitive)" in str(caught.value)
    assert "x9y8z7" not in f"{seen}{caught.value}{caught.value.diagnostics}"


def test_variables_of_the_surrounding_process_do_not_leak_in(
    basic: TerraformDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_VAR_name", "leaked")
    monkeypatch.setenv("TF_CLI_ARGS_plan", "-destroy")
    before = dict(os.environ)
    plan = TerraformDriver(basic.working_dir).plan({"password": Secret("p")})
    assert plan.document["variables"]["name"]["value"] == "first"
    assert dict(os.environ) == before


@pytest.mark.parametrize("value", ["typo", Secret("typo")], ids=["plain", "secret"])
def test_an_undeclared_variable_is_refused_and_leaves_no_plan(basic: TerraformDriver, value: object) -> None:
    with pytest.raises(errors.InvalidVariable, match=r"nmae, expected one of name, password, sizes"):
        basic.plan({"nmae": value})
    assert plans_left(basic) == []


def test_a_missing_a_mistyped_and_an_invalid_variable_are_named(basic: TerraformDriver, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidVariable, match="at most 19 characters"):
        basic.plan({"name": "x" * 20})
    with pytest.raises(errors.InvalidVariable, match="sizes"):
        basic.plan({"sizes": {"a": "many"}})
    driver, _ = slow_driver(tmp_path)
    with pytest.raises(errors.InvalidVariable, match='"command" is not set'):
        driver.plan({"marker": "m"})


def test_validate_points_at_the_line_and_plan_refuses_the_same(tmp_path: Path) -> None:
    driver = driver_for(tmp_path / "bad", 'resource "terraform_data" "x" { inputs = 1 }\n')
    driver.init()
    validation = driver.validate()
    assert not validation.valid
    assert [(item.severity, item.place) for item in validation.diagnostics] == [("error", "main.tf:1")]
    with pytest.raises(errors.InvalidConfiguration, match=r"main\.tf:1: Unsupported argument"):
        driver.plan()
    assert plans_left(driver) == []


def test_validate_accepts_a_good_configuration(basic: TerraformDriver) -> None:
    assert basic.validate().valid


def test_a_directory_that_is_not_there_and_a_missing_binary_are_told(basic: TerraformDriver, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidConfiguration, match="not there"):
        TerraformDriver(tmp_path / "nowhere")
    with pytest.raises(errors.MissingBinary, match=r"got PATH=/nowhere"):
        basic.plan(environment={"PATH": "/nowhere"})
    assert plans_left(basic) == []


def test_a_missing_provider_fails_init_and_names_it(tmp_path: Path) -> None:
    text = 'terraform {\n  required_providers {\n    nope = { source = "example/nope" }\n  }\n}\n'
    driver = driver_for(tmp_path / "nope", text + 'resource "nope_thing" "x" {}\n')
    with pytest.raises(errors.InitFailed, match="example/nope"):
        driver.init(timeout=timedelta(seconds=20))
    with pytest.raises(errors.InitFailed, match="installed by init"):
        driver.plan()


def test_init_takes_a_backend_configuration(tmp_path: Path) -> None:
    driver = driver_for(tmp_path / "backend", 'terraform {\n  backend "local" {}\n}\n' + BASIC)
    with pytest.raises(errors.InitFailed, match="installed by init"):
        driver.plan()
    driver.init({"path": "elsewhere.tfstate"})
    driver.apply(driver.plan())
    assert (driver.working_dir / "elsewhere.tfstate").is_file()
    with pytest.raises(errors.InitFailed, match="reconfigure"):
        driver.init({"path": "other.tfstate"})
    driver.init({"path": "other.tfstate"}, reconfigure=True)


class _ExpiredS3(http.server.BaseHTTPRequestHandler):
    """Answers every request as S3 answers an expired token."""

    def do_GET(self) -> None:
        code, message = "ExpiredToken", "The provided token has expired."
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def expired_s3() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _ExpiredS3)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_expired_credentials_of_the_state_bucket_are_told(tmp_path: Path, expired_s3: str) -> None:
    text = f"""
    terraform {{
      backend "s3" {{
        bucket                      = "states"
        key                         = "k"
        region                      = "us-east-1"
        endpoints                   = {{ s3 = "{expired_s3}" }}
        use_path_style              = true
        skip_credentials_validation = true
        skip_requesting_account_id  = true
        skip_metadata_api_check     = true
        skip_region_validation      = true
        max_retries                 = 1
      }}
    }}
    """
    driver = driver_for(tmp_path / "s3", text)
    keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrX", "AWS_SESSION_TOKEN": "FwoGZX"}
    with pytest.raises(errors.CredentialsExpired, match="ExpiredToken"):
        driver.init(environment=keys, timeout=timedelta(seconds=30))


def test_a_plan_goes_stale_when_the_state_moves(basic: TerraformDriver) -> None:
    old = basic.plan({"name": "old"})
    basic.apply(basic.plan({"name": "new"}))
    with pytest.raises(errors.StalePlan, match="Saved plan is stale"):
        basic.apply(old)
    assert basic.output()["name"].value == "new"
    assert plans_left(basic) == []


def test_a_plan_goes_stale_when_the_configuration_or_its_module_moves(tmp_path: Path) -> None:
    module = tmp_path / "module"
    module.mkdir()
    (module / "main.tf").write_text('resource "terraform_data" "inner" {}\n')
    driver = driver_for(tmp_path / "root", 'module "inner" {\n  source = "../module"\n}\n')
    driver.init()
    plan = driver.plan()
    (module / "main.tf").write_text('resource "terraform_data" "renamed" {}\n')
    with pytest.raises(errors.StalePlan, match="configuration changed"):
        driver.apply(plan)
    assert not (driver.working_dir / "terraform.tfstate").exists()


def test_another_file_in_the_plans_place_is_not_applied(basic: TerraformDriver) -> None:
    plan, other = basic.plan({"name": "reviewed"}), basic.plan({"name": "smuggled"})
    other.path.replace(plan.path)
    with pytest.raises(errors.StalePlan, match="another one"):
        basic.apply(plan)


def test_a_state_held_by_another_terraform_names_it_and_keeps_the_plan(tmp_path: Path) -> None:
    driver, marker = slow_driver(tmp_path)
    values = {"marker": str(marker), "command": "sleep 60"}
    plan = driver.plan(values)
    bare = ["terraform", "apply", "-auto-approve", "-input=false", *(f"-var={k}={v}" for k, v in values.items())]
    holder = subprocess.Popen(bare, cwd=driver.working_dir, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(marker)
        with pytest.raises(errors.StateLocked) as caught:
            driver.apply(plan)
    finally:
        os.killpg(holder.pid, signal.SIGINT)
        holder.wait(timeout=20)
    assert re.fullmatch(r"[0-9a-f-]{36}", caught.value.lock_id)
    assert "@" in caught.value.who
    assert caught.value.since.startswith("20")
    assert caught.value.lock_id in str(caught.value)
    assert plan.path.exists()


def test_a_partial_apply_tells_what_is_done_and_the_next_one_resumes(tmp_path: Path) -> None:
    driver, marker = slow_driver(tmp_path)
    with pytest.raises(errors.ApplyFailed, match="plan and apply again resume") as caught:
        driver.apply(driver.plan({"marker": str(marker), "command": "exit 3"}))
    assert caught.value.done == ("terraform_data.before",)
    assert caught.value.failed == ("terraform_data.slow",)
    assert "exit status 3" in str(caught.value)
    assert plans_left(driver) == []
    again = driver.plan({"marker": str(marker), "command": "true"})
    assert (again.summary.adds, again.summary.replaces) == (1, 1)
    assert driver.apply(again).done[-1] == "terraform_data.after"


def test_a_late_apply_stops_by_sigint_frees_its_lock_and_can_be_resumed(tmp_path: Path) -> None:
    driver, marker = slow_driver(tmp_path)
    plan = driver.plan({"marker": str(marker), "command": "exec sleep 60"})
    with pytest.raises(errors.TimedOut, match="ended by SIGINT") as caught:
        driver.apply(plan, timeout=timedelta(seconds=4))
    assert not caught.value.forced
    assert caught.value.done == ("terraform_data.before",)
    wait_until_gone(int(marker.read_text()))
    driver.apply(driver.plan({"marker": str(marker), "command": "true"}))
    assert len(resources(driver)) == 3


def test_a_terraform_that_hangs_is_killed_after_the_grace(tmp_path: Path) -> None:
    driver, marker = slow_driver(tmp_path, grace=timedelta(seconds=0.5))
    plan = driver.plan({"marker": str(marker), "command": "kill -STOP $PPID; sleep 60"})
    with pytest.raises(errors.TimedOut, match="ended by SIGKILL") as caught:
        driver.apply(plan, timeout=timedelta(seconds=4))
    assert caught.value.forced
    wait_until_gone(int(marker.read_text()))


def test_a_callback_that_raises_cancels_the_apply(tmp_path: Path) -> None:
    driver, marker = slow_driver(tmp_path)

    def cancel(event: Progress) -> None:
        if event.kind == "provision_start":
            wait_for(marker)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver.apply(driver.plan({"marker": str(marker), "command": "exec sleep 60"}), on_progress=cancel)
    wait_until_gone(int(marker.read_text()))
    assert plans_left(driver) == []
    assert "terraform_data.before" in resources(driver)


def plan_once_free(driver: TerraformDriver, marker: Path) -> Plan:
    """The threads of a killed Terraform outlive its first one by a moment, and the lock file is open until the last."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return driver.plan({"marker": str(marker), "command": "true"})
        except errors.DirectoryLocked:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def drive(driver: TerraformDriver, marker: Path, command: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", DRIVE, str(driver.working_dir), str(marker), command]
    return subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_a_killed_driver_keeps_the_directory_until_its_terraform_has_saved_the_state(tmp_path: Path) -> None:
    driver, marker = slow_driver(tmp_path)
    other = drive(driver, marker, "sleep 1.5")
    shell = wait_for(marker)
    other.kill()
    other.wait()
    with pytest.raises(errors.DirectoryLocked, match=rf"pid {other.pid} \(apply since .*terraform is pid") as caught:
        driver.plan({"marker": str(marker), "command": "true"})
    assert caught.value.holder_pid == other.pid
    wait_until_gone(shell)
    plan = plan_once_free(driver, marker)
    assert not plan.has_changes
    assert len(resources(driver)) == 3


def test_an_apply_killed_with_its_driver_is_resumed_by_the_next(tmp_path: Path) -> None:
    driver, marker = slow_driver(tmp_path)
    other = drive(driver, marker, "exec sleep 60")
    shell = wait_for(marker)
    lock = json.loads((driver.working_dir / ".terraform" / "flightpath" / "driver.lock").read_text())
    other.kill()
    os.killpg(lock["terraform_pid"], signal.SIGKILL)
    other.wait()
    wait_until_gone(shell)
    wait_until_gone(lock["terraform_pid"])
    plan = plan_once_free(driver, marker)
    assert plan.summary.adds + plan.summary.replaces >= 2
    driver.apply(plan)
    assert len(resources(driver)) == 3
    assert not driver.plan({"marker": str(marker), "command": "true"}).has_changes


def test_destroy_wants_the_token_of_this_very_state(basic: TerraformDriver) -> None:
    basic.apply(basic.plan({"name": "one"}))
    token = basic.destroy_token()
    assert str(basic.working_dir) in token
    assert "workspace default" in token
    assert re.search(r"serial \d+$", token)
    basic.apply(basic.plan({"name": "two"}))
    for wrong in ("", "yes", token):
        with pytest.raises(errors.NotConfirmed, match="destroy_token"):
            basic.destroy(confirm=wrong)
    assert len(resources(basic)) == 3
    assert len(basic.destroy(confirm=basic.destroy_token()).done) == 3
    assert resources(basic) == set()


def test_apply_refuses_a_destroy_plan(basic: TerraformDriver) -> None:
    basic.apply(basic.plan())
    plan = basic.plan(destroy=True)
    assert plan.summary.destroys == 3
    with pytest.raises(errors.NotConfirmed, match="token"):
        basic.apply(plan)
    assert len(resources(basic)) == 3


def test_a_configuration_that_was_not_applied_is_pending_but_no_drift(basic: TerraformDriver) -> None:
    basic.apply(basic.plan({"name": "one"}))
    assert not basic.drift({"name": "one"}).has_changes
    report = basic.drift({"name": "two"})
    assert (report.has_changes, report.has_drift) == (True, False)
    assert [change.address for change in report.unattributed] == ["terraform_data.named"]
    assert plans_left(basic) == []


def test_a_corrupt_state_is_told_and_not_touched(basic: TerraformDriver) -> None:
    state = basic.working_dir / "terraform.tfstate"
    state.write_text("{ not json")
    with pytest.raises(errors.PlanFailed, match="could not be parsed as JSON"):
        basic.plan()
    assert state.read_text() == "{ not json"
