"""The end of a demo: one table, the commands to try, and where everything lies."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flightpath.local.traffic import RegionTraffic
from serving.credentials import TokenFolder
from serving.regions.places.topology import Topology
from serving.settings import Settings
from tasks.promotion.outcome import RegionOutcome
from tasks.release.report import ReleaseReport

_VARIANTS = ("onnxruntime-cpu-fp32", "onnxruntime-cpu-int8")


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    report: ReleaseReport
    example: str
    """Path that `example.json` is asked at."""
    topology: Topology
    settings: Settings
    seconds: float
    requests_sent: int
    requests_failed: int
    traffic: dict[str, RegionTraffic]


def show(console: Console, result: DemoResult) -> None:
    """Print the summary of a finished release."""
    report = result.report
    console.print()
    console.print(_model_table(report))
    console.print(_region_table(result))
    console.print(_time_table(result))
    console.print(
        f"users: {result.requests_sent} requests, {result.requests_failed} failed", highlight=False, markup=False
    )
    console.print(f"{report.evidence}; ordered by {report.actor}", highlight=False, markup=False)
    for note in report.notes:
        console.print(note, highlight=False, markup=False)
    console.print("\nTry it:", highlight=False)
    for command in curl_commands(result):
        # No wrapping: each command stays one line that can be copied.
        console.print(command, soft_wrap=True, highlight=False, markup=False)
    console.print(f"\ngateway    {result.topology.home.gateway_url}   (status page in a browser)", highlight=False)
    decks = result.settings.root / "decks" / report.release_id
    for name in sorted(path.name for path in decks.glob("*.html")):
        console.print(f"deck       {_from_here(decks / name)}", soft_wrap=True, highlight=False)
    console.print("`make down` ends everything.", highlight=False)


def _model_table(report: ReleaseReport) -> Table:
    if report.figure("evaluation", "perplexity") is None:
        return _classifier_table(report)
    return _language_table(report)


def _title(report: ReleaseReport) -> str:
    return f"{report.model} version {report.version}: {report.state}"


def _classifier_table(report: ReleaseReport) -> Table:
    table = Table(title=_title(report), title_justify="left")
    for column in ("ONNX Runtime", "FP32", "INT8"):
        table.add_column(column, justify="left" if column == "ONNX Runtime" else "right")
    rows = (
        ("accuracy, held-out", "accuracy", "{:.2%}"),
        ("latency p50, batch 1", "p50 batch 1", "{:.3f} ms"),
        ("latency p50, batch 32", "p50 batch 32", "{:.3f} ms"),
        ("size", "size", "{:,.0f} bytes"),
    )
    for title, figure, form in rows:
        values = [report.figure("compression", f"{variant} {figure}") for variant in _VARIANTS]
        table.add_row(title, *(_figure(value, form) for value in values))
    return table


def _language_table(report: ReleaseReport) -> Table:
    table = Table(title=_title(report), title_justify="left")
    for column in ("vLLM", "this model", "bigram", "unigram"):
        table.add_column(column, justify="left" if column == "vLLM" else "right")
    for title, figure, form in (
        ("perplexity per token, held-out", "perplexity", "{:.2f}"),
        ("bits per byte, held-out", "bits_per_byte", "{:.3f}"),
    ):
        values = [report.figure("evaluation", f"{prefix}{figure}") for prefix in ("", "bigram_", "unigram_")]
        table.add_row(title, *(_figure(value, form) for value in values))
    table.add_row("next token right, held-out", _figure(report.figure("evaluation", "accuracy"), "{:.2%}"), "", "")
    table.add_row("parameters", _figure(report.figure("compression", "parameters"), "{:,.0f}"), "", "")
    table.add_row("size", _figure(report.figure("compression", "vllm size"), "{:,.0f} bytes"), "", "")
    return table


def _figure(value: float | None, form: str) -> str:
    return "not measured" if value is None else form.format(value)


def _region_table(result: DemoResult) -> Table:
    table = Table(title="Regions", title_justify="left")
    for column in ("region", "version", "state", "last step", "requests", "failed", "accuracy"):
        table.add_column(column)
    for region in result.report.regions:
        users = result.traffic.get(region.region, RegionTraffic())
        table.add_row(
            region.region,
            f"{region.version} (before: {region.previous_version or 'none'})",
            region.state,
            _last_gates(region),
            _requests(users),
            str(users.failed),
            "not measured" if not users.labelled else f"{users.correct / users.labelled:.2%}",
        )
    return table


def _requests(users: RegionTraffic) -> str:
    versions = ", ".join(f"v{version}: {count}" for version, count in sorted(users.by_version.items()))
    return f"{users.sent} ({versions})" if versions else str(users.sent)


def _last_gates(region: RegionOutcome) -> str:
    """What the gates of the last judged step measured, a line each."""
    judged = [step for step in region.steps if step.gates]
    if not judged:
        return "none"
    gates = [gate for gate in judged[-1].gates if gate.measured is not None]
    return "\n".join(f"{gate.gate} {gate.measured:.4g} {gate.unit}" for gate in gates)


def _time_table(result: DemoResult) -> Table:
    table = Table(title="Where the time went", title_justify="left")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for stage in result.report.stages:
        table.add_row(stage.stage, f"{stage.seconds:.1f}")
    table.add_row("this run, all in all", f"{result.seconds:.1f}")
    return table


def _from_here(path: Path) -> str:
    """The path as it is typed in this folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def curl_commands(result: DemoResult) -> list[str]:
    """Commands that work as they stand, each on one line."""
    model, home = result.report.model, result.topology.home
    body = result.settings.root / "demo" / result.report.release_id / "example.json"
    token = TokenFolder(folder=result.topology.token_folder).path("promoter")
    asked = f"curl -sN -H 'content-type: application/json' -d @{_from_here(body)} {home.gateway_url}"
    return [
        f"curl -s {home.gateway_url}/v1/models",
        f"{asked}{result.example}",
        *([] if "completions" in result.example else [f"curl -s {home.gateway_url}/v2/models/{model}"]),
        f"curl -s -H @{_from_here(token)} {home.agent_url}/v1/promotions/{result.report.release_id}",
    ]
