"""One Terraform command from arguments to outcome: python-terraform builds the command, the runner runs it.

Of python-terraform only `generate_cmd_string` is used. Its `cmd` would copy our whole environment, wait for ever,
keep the output until the end, write variables to a file in /tmp and to its debug log, and re-read the state.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import python_terraform  # type: ignore[import-untyped]  # it ships no types

from infra.driver import errors, inputs, runner
from infra.driver.diagnostics import addresses_of, error_from
from infra.driver.locking import HeldLock
from infra.driver.progress import Diagnostic, Progress, parse_progress
from infra.driver.redaction import Redactor

log = logging.getLogger("infra.terraform")

FLAG = python_terraform.IsFlagged

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """How one command is run, beside its arguments."""

    timeout: timedelta
    variables: inputs.Variables = field(default_factory=dict, repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    on_progress: OnProgress | None = None
    lock: HeldLock | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    exit_code: int
    events: tuple[Progress, ...]
    text: str = field(repr=False)
    """Every line that is no event: the JSON document of show, output and validate."""
    stderr: str = field(repr=False)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        return tuple(event.diagnostic for event in self.events if event.diagnostic is not None)


class Invoker:
    """Runs Terraform in one working directory. One python-terraform object belongs to it, and to it alone."""

    def __init__(self, working_dir: Path, environment: Mapping[str, str] | None, grace: timedelta) -> None:
        self.working_dir = working_dir
        self.redactor = Redactor()
        self._environment = environment
        self._grace = grace
        # A state path that is never there: its constructor would read, and stumble over, the real state file.
        unread = working_dir / ".terraform" / "flightpath" / "unread.tfstate"
        self._builder = python_terraform.Terraform(working_dir=str(working_dir), state=str(unread))

    def invoke(self, call: Call, command: str, *arguments: str, streams: bool = False, **options: Any) -> Outcome:
        """Runs `terraform <command>`; `streams` says that its output is the JSON UI. Raises MissingBinary, TimedOut."""
        environment = self._environment_of(call)
        argv = self._argv(environment, command, *arguments, **options)
        log.info("terraform %s in %s", self.redactor.clean(" ".join(argv[1:])), self.working_dir)
        events: list[Progress] = []
        text: list[str] = []

        def take(line: str) -> None:
            event = parse_progress(line, self.redactor) if streams else None
            if event is None:
                text.append(line)
                return
            events.append(event)
            self._report(event, call.on_progress)

        finished = runner.run(
            runner.Command(
                argv=argv,
                working_dir=self.working_dir,
                environment=environment,
                timeout=call.timeout,
                grace=self._grace,
                umask=0o077 if command == "plan" else -1,
                inherited_fds=() if call.lock is None else (call.lock.fd,),
            ),
            on_line=take,
            on_start=lambda pid: None if call.lock is None else call.lock.note_child(pid),
        )
        if finished.ended_by != "itself":
            raise _timed_out(command, call.timeout, finished.ended_by, tuple(events))
        stderr = self.redactor.clean(finished.stderr.strip()) or f"exit status {finished.exit_code}"
        return Outcome(exit_code=finished.exit_code, events=tuple(events), text="\n".join(text), stderr=stderr)

    def _environment_of(self, call: Call) -> dict[str, str]:
        base = os.environ if self._environment is None else self._environment
        environment = runner.environment_for(base, call.environment, inputs.secret_texts(call.variables))
        self.redactor.learn_environment(environment)
        return environment

    def _argv(self, environment: Mapping[str, str], command: str, *arguments: str, **options: Any) -> list[str]:
        path = environment.get("PATH", os.defpath)
        binary = shutil.which("terraform", path=path)
        if binary is None:
            raise errors.MissingBinary("terraform was not found", got=f"PATH={path}", expected="a directory with it")
        self._builder.terraform_bin_path = binary
        return [str(part) for part in self._builder.generate_cmd_string(command, *arguments, **options)]

    def _report(self, event: Progress, on_progress: OnProgress | None) -> None:
        diagnostic = event.diagnostic
        if diagnostic is not None:
            log.log(logging.ERROR if diagnostic.is_error else logging.WARNING, "%s", diagnostic)
        else:
            log.debug("%s", event.message)
        if on_progress is not None:
            on_progress(event)


def require_success(operation: str, outcome: Outcome) -> None:
    if outcome.exit_code != 0:
        raise error_from(operation, outcome.diagnostics, stderr=outcome.stderr)


def document_of(operation: str, outcome: Outcome) -> dict[str, Any]:
    """The one JSON object that the command printed; what a failed one printed instead is its error."""
    try:
        document = json.loads(outcome.text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise error_from(operation, outcome.diagnostics, stderr=outcome.stderr)
    return document


def _timed_out(command: str, timeout: timedelta, ended_by: str, events: tuple[Progress, ...]) -> errors.TimedOut:
    forced = ended_by == "SIGKILL"
    state = "the state lock may remain" if forced else "Terraform saved its state and released its lock"
    done = addresses_of(events, "apply_complete")
    error = errors.TimedOut(
        f"terraform {command} was ended by {ended_by} ({state})",
        got=f"no end after {timeout.total_seconds():g} s, {len(done)} changes applied",
        expected="an end within the limit; plan and apply again resume",
        done=done,
    )
    error.forced = forced
    return error
