"""The limits of the driver, and what its operations return beside plans."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from infra.driver import errors
from infra.driver.progress import Diagnostic


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long each kind of command may take."""

    init: timedelta = timedelta(minutes=10)
    """Downloads providers: 700 MB for AWS."""
    plan: timedelta = timedelta(minutes=15)
    """Reads every resource; a region takes about a minute."""
    apply: timedelta = timedelta(hours=2)
    """A control plane takes 15 minutes, a database 30, in sequence."""
    read: timedelta = timedelta(minutes=2)
    """show, output, validate, state pull."""
    grace: timedelta = timedelta(minutes=1)
    """From SIGINT to SIGKILL: the API calls under way."""
    state_lock: timedelta = timedelta(0)
    """How long Terraform waits for a state that another run holds; 0 fails at once."""

    def __post_init__(self) -> None:
        for name in ("init", "plan", "apply", "read", "grace"):
            if getattr(self, name) <= timedelta(0):
                raise errors.InvalidConfiguration(f"limit {name} is wrong", got=getattr(self, name), expected="> 0")
        if self.state_lock < timedelta(0):
            raise errors.InvalidConfiguration("limit state_lock is wrong", got=self.state_lock, expected=">= 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    valid: bool
    diagnostics: tuple[Diagnostic, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Applied:
    done: tuple[str, ...]
    """The addresses in the order in which they were completed."""
    diagnostics: tuple[Diagnostic, ...]
    """Warnings: a failed apply is an error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """One output value; a sensitive one is a Secret, whose text says nothing."""

    value: Any
    sensitive: bool
    type: Any = field(default="dynamic", repr=False)
