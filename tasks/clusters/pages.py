"""The pages of provisioning: a plan before it is approved, and drift. HTML that opens anywhere."""

import html
from collections.abc import Iterable, Sequence
from typing import Final

from tasks.clusters.outcomes import DriftFound, DriftRow, RegionPlan

_COLOURS: Final = {"changed": "#bf8700", "deleted": "#cf222e", "consequence": "#6e7781", "unattributed": "#0969da"}
_MEANINGS: Final = {
    "changed": "somebody changed it outside Terraform",
    "deleted": "somebody deleted it outside Terraform",
    "consequence": "an apply must change it, since something that it refers to drifted",
    "unattributed": "the configuration was changed and not applied",
}


def plan_page(planned: RegionPlan) -> str:
    counts = (
        f"{planned.adds} to create, {planned.changes} to change, {planned.replaces} to replace, "
        f"{planned.destroys} to destroy."
    )
    head = f"<p>{counts} {_cost(planned)}</p><p>Digest: <code>{planned.digest}</code></p>"
    return "\n".join(
        (
            head,
            _listed("Breaches of policy: this plan is refused", planned.breaches),
            _listed("Waived", planned.waived),
            _listed("Waivers that ended or cover nothing", planned.stale_waivers),
            _listed("What it does", planned.actions),
        )
    )


def _cost(planned: RegionPlan) -> str:
    if planned.breaches and not planned.most_usd:
        return "What a month costs is not known."
    return f"A month costs {planned.least_usd:,.0f} to {planned.most_usd:,.0f} USD by the price file."


def drift_page(found: DriftFound) -> str:
    if not found.rows:
        return "<p>No drift: everything is as it was applied.</p>"
    problem = f"<p>The audit log did not tell who: {html.escape(found.log_problem)}</p>" if found.log_problem else ""
    causes = [cause for cause in _MEANINGS if any(row.cause == cause for row in found.rows)]
    legend = "".join(f"<li>{_mark(cause)}: {_MEANINGS[cause]}</li>" for cause in causes)
    rows = (_drift_row(row) for row in found.rows)
    return f"{problem}<ul>{legend}</ul>{table(('resource', 'cause', 'what', 'an apply would', 'by'), rows)}"


def _drift_row(row: DriftRow) -> Sequence[str]:
    return (
        f"<code>{html.escape(row.address)}</code>",
        _mark(row.cause),
        "<br>".join(html.escape(item) for item in row.attributes) or "-",
        html.escape(row.remedy),
        "<br>".join(html.escape(name) for name in row.who) or "not known",
    )


def _mark(cause: str) -> str:
    return f'<b style="color:{_COLOURS.get(cause, "#1b1f24")}">{html.escape(cause)}</b>'


def _listed(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    rows = "".join(f"<li><code>{html.escape(item)}</code></li>" for item in items)
    return f"<h2>{title} ({len(items)})</h2><ul>{rows}</ul>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already."""
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{titles}</tr>{body}</table>"
