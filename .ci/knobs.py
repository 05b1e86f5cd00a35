"""Writes the tables of knobs in docs/api.md from the classes that own them; `--check` only says whether they are right.

    python .ci/knobs.py [--check]

A field's docstring is its unit and reason. No import of what it reads: the tables need no environment.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "api.md"
TABLES = {
    "policy": [("serving/regions/deciding/policy.py", "PromotionPolicy")],
    "timing": [("serving/regions/deciding/timing.py", "Timing")],
    "servers": [
        ("serving/regions/servers/launcher.py", "LaunchSettings"),
        ("serving/regions/servers/watch.py", "WatchSettings"),
        ("serving/regions/servers/probe.py", "ProbeSettings"),
        ("serving/liveness.py", "LivenessLimits"),
    ],
    "copies": [
        ("serving/copying.py", "CopyLimits"),
        ("serving/store_files.py", "StoreLimits"),
        ("serving/regions/replication/audit.py", "AuditLimits"),
    ],
    "gateway": [
        ("serving/gateway/endpoints.py", "GatewayLimits"),
        ("serving/gateway/upstream.py", "UpstreamLimits"),
        ("serving/gateway/lateness.py", "LatenessLimits"),
        ("serving/gateway/retries.py", "RetryLimits"),
        ("serving/gateway/streaming.py", "StreamLimits"),
        ("serving/gateway/ejection.py", "EjectionLimits"),
        ("serving/gateway/feedback.py", "FeedbackLimits"),
        ("serving/gateway/mirror.py", "MirrorLimits"),
        ("serving/gateway/completion_mirror.py", "CompletionMirrorLimits"),
    ],
}


def rows(path: str, name: str) -> list[str]:
    """`| field | default | meaning |` of each field of a dataclass."""
    tree = ast.parse((ROOT / path).read_text())
    owner = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    found = []
    for field, after in zip(owner.body, [*owner.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        said = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
        if not isinstance(said, str):
            raise SystemExit(f"{path}: {name}.{field.target.id} has no docstring, expected its unit and reason")
        default = "" if field.value is None else _default(field.value)
        meaning = " ".join(said.split()).replace("|", "\\|")
        found.append(f"| `{field.target.id}` | {default} | {meaning} |")
    return found


def _default(value: ast.expr) -> str:
    """What the code says, with factories and arithmetic worked out."""
    if isinstance(value, ast.Call) and value.keywords and isinstance(value.keywords[0].value, ast.Lambda):
        value = value.keywords[0].value.body
    elif isinstance(value, ast.Call) and value.keywords and value.keywords[0].arg == "default_factory":
        value = ast.Call(func=value.keywords[0].value, args=[], keywords=[])
    text = ast.unparse(value)
    if isinstance(value, ast.BinOp) and all(
        isinstance(node, ast.BinOp | ast.Constant | ast.operator) for node in ast.walk(value)
    ):
        text = str(eval(text))  # constants alone, checked above
    return f"`{text}`"


def render(page: str) -> str:
    for table, classes in TABLES.items():
        start, end = f"<!-- knobs: {table} -->", f"<!-- end of knobs: {table} -->"
        before, _, rest = page.partition(start)
        _, found, after = rest.partition(end)
        if not found:
            raise SystemExit(f"docs/api.md has no table {table}, expected {start} … {end}")
        lines = ["| knob | default | what it is |", "|---|---|---|"]
        lines += [row for path, name in classes for row in rows(path, name)]
        page = before + start + "\n" + "\n".join(lines) + "\n" + end + after
    return page


def main(arguments: list[str]) -> int:
    page = PAGE.read_text()
    rendered = render(page)
    if arguments == ["--check"]:
        if rendered != page:
            print("docs/api.md: its tables of knobs are not those of the code; run `make knobs`", file=sys.stderr)
        return int(rendered != page)
    PAGE.write_text(rendered)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
