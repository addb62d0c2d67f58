"""Draw docs/demo-output.txt, the demo's real output, as docs/images/demo.png: `python -m demo.picture`.

Of the many lines of a rollout the picture keeps the events, the state after each of them, and the end.
"""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "docs" / "demo-output.txt"
TARGET = REPOSITORY / "docs" / "images" / "demo.png"
WIDTH = 132

_EVENT = re.compile(r"^ *[\d.]+s  ▸ ")
_STATE = re.compile(r"^ *[\d.]+s  (?!▸)")
_COLOURS = (
    ("━━", "#8ab4f8"),
    ("▸ Promoted", "#81c995"),
    ("OutOfBounds", "#f28b82"),
    ("AboveStable", "#f28b82"),
    ("PricesDiffer", "#f28b82"),
    ("▸", "#fdd663"),
    ("█", "#78d9ec"),
)


def excerpt(lines: list[str]) -> list[str]:
    """The headings, each event with the measured state that follows it, and the lines that are no state at all."""
    kept: list[str] = []
    wanted = False
    for index, line in enumerate(lines):
        if _EVENT.match(line):
            kept.append(line)
            wanted = True
        elif _STATE.match(line):
            measured = "measured" in line or "RolledBack" in line
            if wanted and measured:
                kept.extend([line, *_details(lines[index + 1 :])])
                wanted = False
        elif not line.startswith("        "):
            kept.append(line)
    return [line[:WIDTH] for line in kept]


def _details(following: list[str]) -> list[str]:
    details = []
    for line in following:
        if not line.startswith("        "):
            break
        if "latency-p99" not in line:
            details.append(line)
    return details


def draw(lines: list[str], target: Path) -> None:
    """A terminal in a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    height = 0.165 * len(lines) + 0.3
    figure = plt.figure(figsize=(9.6, height), facecolor="#202124")
    for index, line in enumerate(lines):
        colour = next((colour for mark, colour in _COLOURS if mark in line), "#e8eaed")
        figure.text(
            0.012, 1 - (0.25 + 0.165 * index) / height, line.replace("$", r"\$"),
            family="DejaVu Sans Mono", fontsize=7.6, color=colour, va="center",
        )  # fmt: skip
    figure.savefig(target, dpi=130, facecolor=figure.get_facecolor())
    plt.close(figure)


def main() -> None:
    """Draw it."""
    text = SOURCE.read_text(encoding="utf-8").split("━━ what there is now")[0]
    end = text.index("the incident, as status.lastRollback")
    draw(excerpt(text[: text.rindex("\n", 0, end)].splitlines()), TARGET)


if __name__ == "__main__":
    main()
