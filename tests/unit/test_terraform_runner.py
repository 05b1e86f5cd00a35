"""One process: its lines, its limit, its end; one driver a directory; inputs that reach no command line."""

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from infra.driver import errors, inputs
from infra.driver.locking import locked
from infra.driver.redaction import Secret
from infra.driver.runner import Command, environment_for, run
from infra.driver.values import Limits


def command(script: str, folder: Path, *, timeout_s: float = 20, grace_s: float = 5) -> Command:
    return Command(
        argv=["/bin/sh", "-c", script],
        working_dir=folder,
        environment={"PATH": os.environ["PATH"]},
        timeout=timedelta(seconds=timeout_s),
        grace=timedelta(seconds=grace_s),
    )


def ignore(_: int) -> None:
    pass


def test_lines_arrive_whole_and_the_last_needs_no_end(tmp_path: Path) -> None:
    lines: list[str] = []
    finished = run(
        command("printf 'one\\ntw'; sleep 0.2; printf 'o\\nthree'", tmp_path), on_line=lines.append, on_start=ignore
    )
    assert lines == ["one", "two", "three"]
    assert (finished.exit_code, finished.ended_by) == (0, "itself")


def test_lines_arrive_while_the_process_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run(
        command(f"echo open; until [ -e {gate} ]; do sleep 0.02; done", tmp_path),
        on_line=lambda _: gate.touch(),
        on_start=ignore,
    )
    assert gate.exists()


def test_a_process_that_ignores_sigint_is_killed_after_its_grace(tmp_path: Path) -> None:
    begun = time.monotonic()
    finished = run(
        command("trap '' INT; sleep 60", tmp_path, timeout_s=0.3, grace_s=0.2), on_line=print, on_start=ignore
    )
    assert finished.ended_by == "SIGKILL"
    assert time.monotonic() - begun < 10


def test_a_callback_that_raises_ends_the_process_first(tmp_path: Path) -> None:
    pids: list[int] = []

    def refuse(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="go"):
        run(command("echo go; exec sleep 60", tmp_path), on_line=refuse, on_start=pids.append)
    with pytest.raises(ProcessLookupError):
        os.killpg(pids[0], 0)


def test_an_environment_is_a_copy_without_hidden_instructions() -> None:
    base = {"PATH": "/bin", "TF_CLI_ARGS": "-destroy", "TF_VAR_x": "1", "TF_LOG": "trace", "TF_INPUT": "1", "A": "1"}
    made = environment_for(base, {"A": "2"}, {"password": "p"})
    assert made == {
        "PATH": "/bin",
        "A": "2",
        "TF_VAR_password": "p",
        "TF_IN_AUTOMATION": "1",
        "TF_INPUT": "0",
        "CHECKPOINT_DISABLE": "1",
    }
    assert base["A"] == "1"


def test_one_directory_has_one_driver_and_names_it(tmp_path: Path) -> None:
    with locked(tmp_path, "apply"), pytest.raises(errors.DirectoryLocked) as caught, locked(tmp_path, "plan"):
        pytest.fail("two drivers held one directory")
    assert caught.value.holder_pid == os.getpid()
    assert "(apply since" in str(caught.value)
    with locked(tmp_path, "plan"):
        assert (tmp_path / ".terraform" / "flightpath" / "driver.lock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["", "1st", "a b", "x=y", "-destroy"])
def test_a_name_that_is_no_identifier_is_refused(name: str) -> None:
    with pytest.raises(errors.InvalidVariable, match="expected an identifier"):
        inputs.check_names({name: 1})


@pytest.mark.parametrize("value", [object(), float("nan"), Secret({1, 2})])
def test_a_value_that_terraform_has_no_type_for_is_refused(value: object) -> None:
    with pytest.raises(errors.InvalidVariable, match="expected JSON"):
        inputs.check_names({"name": value})


def test_a_structured_secret_starts_no_template() -> None:
    texts = inputs.secret_texts({"plain": 1, "text": Secret("${a}"), "map": Secret({"k": "${a} %{b}"})})
    assert texts == {"text": "${a}", "map": '{"k": "$${a} %%{b}"}'}


def test_a_private_file_is_for_its_owner_and_goes_with_an_error(tmp_path: Path) -> None:
    def fail_inside() -> None:
        with inputs.private_json({"a": 1}, ".json") as path:
            assert path is not None
            seen.append(path)
            assert path.stat().st_mode & 0o777 == 0o600
            raise ValueError("inside")

    seen: list[Path] = []
    with pytest.raises(ValueError, match="inside"):
        fail_inside()
    assert not seen[0].exists()


def test_a_limit_that_makes_no_sense_is_named() -> None:
    with pytest.raises(errors.InvalidConfiguration, match="limit grace is wrong"):
        Limits(grace=timedelta(0))
    with pytest.raises(errors.InvalidConfiguration, match="limit state_lock is wrong"):
        Limits(state_lock=timedelta(seconds=-1))


def test_the_driver_imports_nothing_above_it() -> None:
    check = (
        "import sys, infra.terraform; "
        "print([m for m in sys.modules if m.split('.')[0] in ('flightpath', 'workflows', 'tasks', 'flytekit')])"
    )
    shown = subprocess.run([sys.executable, "-W", "error", "-c", check], capture_output=True, text=True, check=False)
    assert (shown.stdout.strip(), shown.stderr) == ("[]", "")
