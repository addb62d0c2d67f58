"""A verification's outcome as text, as JSON, and as a page with pictures of the errors."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from pinn_inference.training.checks import Picture, VerificationReport

JSON_FILE: Final = "report.json"
PAGE_FILE: Final = "report.html"

_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .25em .8em .25em 0; border-bottom: 1px solid #ddd; vertical-align: top }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap }
td.detail { font-size: 13px; overflow-wrap: anywhere }
.failed td { background: #fde8e8 }
img { max-width: 100% }
"""


def as_json(report: VerificationReport) -> str:
    """One object; numbers that are not finite become null."""
    return json.dumps(_document(report), indent=1, allow_nan=False)


def as_text(report: VerificationReport) -> str:
    """A line for each check, and one for the outcome."""
    lines = [f"model {report.directory}"]
    artefact = report.artefact
    if artefact is not None:
        lines[0] += f": {artefact.name} {artefact.version}"
    for check in report.checks:
        verdict = "ok  " if check.passed else "FAIL"
        lines.append(f"{verdict}  {check.name:46s} {check.value:9.2e} ≤ {check.limit:7.1e}  {check.detail}")
    return "\n".join([*lines, _outcome(report)])


def write(report: VerificationReport, directory: Path) -> list[Path]:
    """Writes JSON, page and, where matplotlib is installed and the model could be read, pictures; returns the paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / JSON_FILE, directory / PAGE_FILE]
    pictures = report.draw(directory)
    paths[0].write_text(as_json(report) + "\n", encoding="utf-8")
    paths[1].write_text(_as_page(report, pictures), encoding="utf-8")
    return [*paths, *(picture.path for picture in pictures)]


def _document(report: VerificationReport) -> dict[str, Any]:
    model = report.artefact
    return {
        "passed": report.passed,
        "directory": str(report.directory),
        "model": model
        and {
            "name": model.name,
            "version": model.version,
            "sha256": model.sha256,
            "error_bound": model.certificate.error_bound,
        },
        "checks": [
            {**asdict(check), "value": check.value if math.isfinite(check.value) else None} for check in report.checks
        ],
    }


def _outcome(report: VerificationReport) -> str:
    failed = sum(not check.passed for check in report.checks)
    return f"{failed} of {len(report.checks)} checks failed" if failed else f"all {len(report.checks)} checks passed"


def _as_page(report: VerificationReport, pictures: Sequence[Picture]) -> str:
    """One file that needs no other: the pictures lie in it."""
    model = report.artefact
    title = f"{model.name} {model.version}" if model else str(report.directory)
    rows = "\n".join(
        f'<tr class="{"passed" if check.passed else "failed"}"><td>{"ok" if check.passed else "FAILED"}</td>'
        f'<td>{html.escape(check.name)}</td><td class="number">{check.value:.2e}</td>'
        f'<td class="number">≤ {check.limit:.1e}</td><td class="detail">{html.escape(check.detail)}</td></tr>'
        for check in report.checks
    )
    identity = f"<p>weights.npz, sha256 <code>{model.sha256}</code></p>" if model else ""
    drawn = "\n".join(
        f"<h2>{picture.heading}</h2>\n"
        f'<p><img alt="{picture.alternative}" src="data:image/png;base64,'
        f'{base64.b64encode(picture.path.read_bytes()).decode("ascii")}"></p>\n'
        f"<p>{picture.caption}</p>"
        for picture in pictures
    )
    if model and not pictures:
        drawn = "<p>No map of the errors: it needs matplotlib and a model that can be read.</p>"
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Verification of {html.escape(title)}</title><style>{_STYLE}</style></head>
<body>
<h1>Verification of {html.escape(title)}</h1>
<p><strong>{_outcome(report)}</strong></p>
{identity}
<table>
<thead><tr><th></th><th>check</th><th>measured</th><th>allowed</th><th>detail</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
{drawn}
</body>
</html>
"""
