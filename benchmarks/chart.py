"""The figures as a chart: bars in an SVG that reads well on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from benchmarks.figures import Results
from benchmarks.goals import MIB
from benchmarks.summary import Summary, held, summary

_WIDTH, _BAR, _GAP, _HEAD, _LEFT, _RIGHT = 760, 18, 6, 34, 230, 90
# GitHub shows the picture on the page's own background, and tells it which one that is.
_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600 }
.ours { fill: #0969da }
.other { fill: #afb8c1 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .ours { fill: #58a6ff }
  .other { fill: #57606a }
}
"""


@dataclass(frozen=True)
class Panel:
    """One figure of all peers."""

    title: str
    figure: Callable[[Summary], float | None]
    digits: int


def panels(at_once: int) -> tuple[Panel, ...]:
    """What the chart shows."""
    return (
        Panel("No-op containers a minute (more is better)", lambda each: each.throughput, 0),
        Panel("Seconds from creation to container start (less is better)", lambda each: each.single, 2),
        Panel("CPU seconds of the supervisor for one run (less is better)", lambda each: each.supervisor_cpu, 2),
        Panel(
            f"MiB of the supervisor with {at_once} sleeping containers (less is better)",
            lambda each: held(each.few) / MIB if each.few else None,
            0,
        ),
    )


def svg(results: Results) -> str:
    """The chart."""
    peers = [(peer.name, summary(peer)) for peer in results.peers]
    parts: list[str] = []
    top = 0
    at_once = max((each.few.at_once for _, each in peers if each.few), default=0)
    for panel in panels(at_once):
        parts.append(f'<text class="head" x="0" y="{top + 20}">{escape(panel.title)}</text>')
        top += _HEAD
        most = max(panel.figure(each) or 0.0 for _, each in peers) or 1.0
        for name, each in peers:
            parts += _bar(
                top, each.title, panel.figure(each), most, panel.digits, "ours" if name == "ours" else "other"
            )
            top += _BAR + _GAP
        top += _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}" '
        f'role="img">\n<title>How prefect-jobs compares</title>\n<style>\n{_STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _bar(top: int, title: str, value: float | None, most: float, digits: int, kind: str) -> list[str]:
    width = max(1.0, (value or 0.0) / most * (_WIDTH - _LEFT - _RIGHT))
    words = "not measured" if value is None else f"{value:.{digits}f}"
    middle = top + _BAR - 4
    return [
        f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end">{escape(title)}</text>',
        f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="2"/>',
        f'<text x="{_LEFT + width + 6:.1f}" y="{middle}">{words}</text>',
    ]


def write(path: Path, results: Results) -> None:
    """Put the chart into a file."""
    path.write_text(svg(results))
