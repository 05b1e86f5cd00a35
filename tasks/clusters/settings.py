"""Where configurations, prices and manifests lie, and how clusters are reached: FLIGHTPATH_INFRA_* variables."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_PROJECT = Path(__file__).resolve().parents[2]


class ClusterSettings(BaseSettings):
    """Every default is the checkout's own."""

    model_config = SettingsConfigDict(env_prefix="FLIGHTPATH_INFRA_", frozen=True)

    environments: Path = _PROJECT / "infra" / "environments"
    """One folder of Terraform for each region, its policy.yaml and, if there are any, waivers.yaml in it."""

    gitops: Path = _PROJECT / "infra" / "gitops"
    """Kustomize overlays, a folder for each environment."""

    prices: Path = _PROJECT / "examples" / "infra" / "prices.json"
    """Price file: our own form or a cloud's export. The default is an example."""

    variables: dict[str, str] = Field(default_factory=dict)
    """Values of Terraform variables that every environment wants; those of a run go before them."""

    backend: dict[str, str] = Field(default_factory=dict)
    """Settings of the state backend, such as bucket and region."""

    kubeconfig: Path | None = None
    """How the cluster is reached; by default through its cloud's own log-in and the outputs of Terraform."""

    ready_s: float = Field(default=600, gt=0)
    """How long everything that was installed may take until it is available."""

    gateway_url: str = ""
    """Where the region's gateway answers; empty: not asked, as before its DNS name is there."""
