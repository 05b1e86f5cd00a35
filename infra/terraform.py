"""Drives Terraform in one working directory: init, validate, plan, apply, output, drift, destroy.

It promises: only a saved plan is applied, and only while the state and the configuration are those that it was made
from; nothing is destroyed without a token that names directory, workspace and state; one driver per directory; a run
that is late or cancelled stops as Terraform wants to be stopped; secrets reach no command line, log or error; every
failure is one of `infra.driver.errors`.

    terraform = TerraformDriver(Path("infra/environments/us-east"))
    terraform.init()
    plan = terraform.plan({"region": "us-east-1", "password": Secret(password)}, on_progress=show)
    terraform.apply(plan)
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from infra.driver import errors, inputs, locking, saved
from infra.driver.diagnostics import addresses_of, apply_error, error_from
from infra.driver.invocation import FLAG, Call, Invoker, OnProgress, Outcome, document_of, require_success
from infra.driver.plan import DriftReport, Plan, ResourceChange, Summary, declared_variables, learn_marked, read_changes
from infra.driver.progress import Diagnostic, Progress, parse_diagnostic
from infra.driver.redaction import Secret
from infra.driver.values import Applied, Limits, Output, Validation

__all__ = [
    "Applied",
    "Diagnostic",
    "DriftReport",
    "Limits",
    "Output",
    "Plan",
    "Progress",
    "ResourceChange",
    "Secret",
    "TerraformDriver",
    "Validation",
]


class TerraformDriver:
    """`environment` replaces the process's own (None: a copy of it, at each call); each call may add to it."""

    def __init__(
        self, working_dir: Path, *, environment: Mapping[str, str] | None = None, limits: Limits | None = None
    ) -> None:
        if not working_dir.is_dir():
            raise errors.InvalidConfiguration(
                "the working directory is not there", got=working_dir, expected="a folder"
            )
        self.working_dir = working_dir.resolve()
        self._limits = limits or Limits()
        self._terraform = Invoker(self.working_dir, environment, self._limits.grace)

    def init(
        self,
        backend_config: Mapping[str, str] | None = None,
        *,
        reconfigure: bool = False,
        timeout: timedelta | None = None,
        environment: Mapping[str, str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Installs providers and modules. Credentials of the backend belong into `environment`: Terraform keeps
        `backend_config` in clear in `.terraform`."""
        call = self._call(timeout or self._limits.init, environment=environment, on_progress=on_progress)
        with self._locked("init", call) as held, inputs.private_json(backend_config or {}, ".json") as path:
            options = {"json": FLAG, "input": False, "reconfigure": FLAG if reconfigure else None}
            outcome = self._terraform.invoke(held, "init", streams=True, backend_config=path, **options)
        require_success("init", outcome)

    def validate(self, *, environment: Mapping[str, str] | None = None) -> Validation:
        outcome = self._terraform.invoke(self._call(self._limits.read, environment=environment), "validate", json=FLAG)
        document = document_of("validate", outcome)
        found = tuple(parse_diagnostic(raw, self._terraform.redactor) for raw in document.get("diagnostics", ()))
        return Validation(valid=bool(document.get("valid")), diagnostics=found)

    def plan(
        self,
        variables: inputs.Variables | None = None,
        *,
        targets: Sequence[str] = (),
        destroy: bool = False,
        timeout: timedelta | None = None,
        environment: Mapping[str, str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Plan:
        """Saves a plan (a secret: apply or discard it). A plan with `destroy` shows; only `destroy` applies one."""
        call = self._call(timeout or self._limits.plan, variables, environment, on_progress)
        with self._locked("plan", call) as held:
            return self._plan(held, targets=targets, destroy=destroy)

    def apply(
        self,
        plan: Plan,
        *,
        timeout: timedelta | None = None,
        environment: Mapping[str, str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Applied:
        """Applies the saved plan and removes it, also when that fails; it stays only while another holds the state."""
        if plan.destroy:
            raise errors.NotConfirmed("apply got a destroy plan", got=plan.path, expected="destroy() with its token")
        call = self._call(timeout or self._limits.apply, environment=environment, on_progress=on_progress)
        with self._locked("apply", call) as held:
            return self._apply(held, plan)

    def output(self, *, environment: Mapping[str, str] | None = None) -> dict[str, Output]:
        outcome = self._terraform.invoke(self._call(self._limits.read, environment=environment), "output", json=FLAG)
        require_success("output", outcome)
        return {name: _read_output(raw) for name, raw in document_of("output", outcome).items()}

    def drift(
        self,
        variables: inputs.Variables | None = None,
        *,
        timeout: timedelta | None = None,
        environment: Mapping[str, str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> DriftReport:
        """What changed outside Terraform. It changes nothing, and keeps no plan."""
        plan = self.plan(variables, timeout=timeout, environment=environment, on_progress=on_progress)
        plan.discard()
        return DriftReport(has_changes=plan.has_changes, drifted=plan.drift, pending=plan.changes)

    def destroy_token(self, *, environment: Mapping[str, str] | None = None) -> str:
        """What a person must repeat to destroy exactly this: it changes with every change of the state."""
        return self._destroy_token(self._call(self._limits.read, environment=environment))

    def destroy(
        self,
        variables: inputs.Variables | None = None,
        *,
        confirm: str,
        timeout: timedelta | None = None,
        environment: Mapping[str, str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Applied:
        """Destroys everything that the state holds, if `confirm` is the token of this very state."""
        call = self._call(timeout or self._limits.apply, variables, environment, on_progress)
        with self._locked("destroy", call) as held:
            token = self._destroy_token(held)
            if confirm != token:
                raise errors.NotConfirmed(
                    f"destroy of {self.working_dir} is not confirmed",
                    got=repr(confirm),
                    expected="what destroy_token() returns for the state as it is now",
                )
            return self._apply(held, self._plan(held, destroy=True))

    def _call(
        self,
        timeout: timedelta,
        variables: inputs.Variables | None = None,
        environment: Mapping[str, str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Call:
        inputs.check_names(variables or {})
        for value in (variables or {}).values():
            if isinstance(value, Secret):
                self._terraform.redactor.learn(value)
        return Call(timeout=timeout, variables=variables or {}, environment=environment or {}, on_progress=on_progress)

    @contextlib.contextmanager
    def _locked(self, operation: str, call: Call) -> Iterator[Call]:
        with locking.locked(self.working_dir, operation) as lock:
            yield replace(call, lock=lock)

    def _plan(self, call: Call, *, targets: Sequence[str] = (), destroy: bool = False) -> Plan:
        configuration = inputs.configuration_sha256(self.working_dir)
        path = saved.new_plan_path(self.working_dir)
        try:
            outcome = self._run_plan(call, path, targets=targets, destroy=destroy)
            document = document_of("show", self._terraform.invoke(call, "show", str(path), json=FLAG))
            inputs.check_declared(call.variables, declared_variables(document))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        redactor = self._terraform.redactor
        learn_marked(document, redactor)
        changes = read_changes(document, "resource_changes", redactor)
        return Plan(
            path=path,
            sha256=saved.sha256(path),
            configuration_sha256=configuration,
            has_changes=outcome.exit_code == 2,
            destroy=destroy,
            summary=Summary.of(changes),
            changes=changes,
            drift=read_changes(document, "resource_drift", redactor),
            document=document,
        )

    def _run_plan(self, call: Call, path: Path, *, targets: Sequence[str], destroy: bool) -> Outcome:
        with inputs.private_json(inputs.plain_values(call.variables), ".tfvars.json") as var_file:
            outcome = self._terraform.invoke(
                call,
                "plan",
                streams=True,
                json=FLAG,
                input=False,
                detailed_exitcode=FLAG,
                lock_timeout=self._lock_timeout,
                out=path,
                var_file=var_file,
                target=list(targets),
                destroy=FLAG if destroy else None,
            )
        if outcome.exit_code not in (0, 2):
            raise error_from("plan", outcome.diagnostics, stderr=outcome.stderr)
        return outcome

    def _apply(self, call: Call, plan: Plan) -> Applied:
        try:
            saved.require_fresh(plan, self.working_dir)
            outcome = self._terraform.invoke(
                call, "apply", str(plan.path), streams=True, json=FLAG, input=False, lock_timeout=self._lock_timeout
            )
            if outcome.exit_code != 0:
                raise apply_error(outcome.diagnostics, outcome.events, stderr=outcome.stderr)
        except errors.StateLocked:
            raise
        except BaseException:
            plan.discard()
            raise
        plan.discard()
        return Applied(done=addresses_of(outcome.events, "apply_complete"), diagnostics=outcome.diagnostics)

    def _destroy_token(self, call: Call) -> str:
        shown = self._terraform.invoke(call, "workspace show")
        require_success("workspace show", shown)
        pulled = self._terraform.invoke(call, "state pull")
        require_success("state pull", pulled)
        state = document_of("state pull", pulled) if pulled.text.strip() else {"serial": 0, "lineage": "none"}
        lineage = str(state["lineage"])[:8]
        return f"destroy {self.working_dir} workspace {shown.text.strip()} state {lineage} serial {state['serial']}"

    @property
    def _lock_timeout(self) -> str:
        return f"{self._limits.state_lock.total_seconds():g}s"


def _read_output(raw: Mapping[str, Any]) -> Output:
    sensitive = bool(raw["sensitive"])
    value = Secret(raw["value"]) if sensitive else raw["value"]
    return Output(value=value, sensitive=sensitive, type=raw.get("type", "dynamic"))
