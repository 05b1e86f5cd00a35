"""What passes between the steps of provisioning. Plain types: Flyte carries them, and none holds a secret."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class RegionPlan:
    """What an apply would do, and whether it may. The plan file itself is a secret and stays where it was made."""

    region: str
    digest: str
    """Of everything that the plan would change: what an approval repeats."""
    adds: int
    changes: int
    destroys: int
    replaces: int
    actions: list[str]
    """`create module.x.aws_vpc.this`, in the plan's order."""
    least_usd: float
    """A month, with every node group at its smallest."""
    most_usd: float
    breaches: list[str] = field(default_factory=list)
    waived: list[str] = field(default_factory=list)
    stale_waivers: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    """As given to the run; a value `env:NAME` is read where it is used."""
    backend: dict[str, str] = field(default_factory=dict)
    has_changes: bool = True


@dataclass(kw_only=True)
class AppliedRegion:
    region: str
    digest: str
    done: list[str]
    """Addresses, in the order of their completion."""
    seconds: float
    outputs: list[str] = field(default_factory=list)
    """Names alone: values are read from the state by whoever needs them."""
    backend: dict[str, str] = field(default_factory=dict)
    approved_by: str = ""
    """Who ran the order that repeats the plan's digest."""


@dataclass(kw_only=True)
class InstalledRegion:
    region: str
    by: str
    """kubectl | argocd | nobody"""
    folders: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    """`kind/name` of everything that was applied."""
    backend: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class ProvisionReport:
    """How a region stands after `provision`."""

    region: str
    digest: str
    applied: int
    installed: int
    checks: list[str]
    """What the smoke test saw."""
    least_usd: float
    most_usd: float


@dataclass(kw_only=True)
class DriftRow:
    address: str
    cause: str
    """changed | deleted | consequence | unattributed"""
    remedy: str
    attributes: list[str]
    """`name: before -> after`"""
    who: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class DriftFound:
    region: str
    has_drift: bool
    is_clean: bool
    rows: list[DriftRow] = field(default_factory=list)
    log_problem: str = ""
    page: str = ""
    """The report, on the machine that made it."""
