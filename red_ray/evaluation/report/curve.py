"""The curve of a promise as a drawing of its own, for those who have no page to look at."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from markupsafe import Markup

from red_ray.core.thresholds import Promise
from red_ray.evaluation.report.charts import threshold_chart
from red_ray.evaluation.report.source import ThresholdDetails
from red_ray.storage import writing

_WIDTH, _CHART, _TOP = 460, 340, 34
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #59626b; } .note { font-style: italic; }
.grid { stroke: #e1ded6; } .notch { stroke: #b9bfc6; } .paper { fill: #ffffff; }
.line { fill: none; stroke: #0b6cb3; stroke-width: 2.25; stroke-linejoin: round; }
.band, .key { fill: #0b6cb3; } .band { opacity: 0.16; }
.dot { fill: #0b6cb3; stroke: #ffffff; stroke-width: 1.5; }
.line.other { stroke: #e08a00; } .band.other, .dot.other, .key.other { fill: #e08a00; }
.chosen { fill: none; stroke: #1d2227; stroke-width: 1.25; stroke-dasharray: 3 3; }
"""
"""The colours of the report's style sheet in the light scheme."""


def write_curve(path: Path, promise: Promise) -> None:
    """Write what each threshold does to the rows of a promise, as SVG.

    Raises:
        OutputError: the file cannot be written.
        StorageError: the disk is full.
    """
    drawn = drawing(promise)
    with writing(path):
        path.write_text(drawn, encoding="utf-8")


def drawing(promise: Promise) -> str:
    """The SVG of a promise: its curve with bands, and the threshold in use."""
    derived = ThresholdDetails.model_validate(asdict(promise) | asdict(promise.thresholds))
    told = "Recall of errors and precision against the share of texts escalated"
    chart = threshold_chart(derived.curve, derived.chosen, told)
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}">'
        '<style>{2}</style><rect class="paper" width="{0}" height="{1}"/>{3}'
        '<svg y="{4}" width="{0}" height="{5}">{6}</svg></svg>\n'
    ).format(_WIDTH, _TOP + _CHART, Markup(_STYLE), _legend(), _TOP, _CHART, chart)


def _legend() -> Markup:
    entries = (
        (20, "key", "errors that are escalated"),
        (210, "key other", "right where answered alone"),
    )
    return Markup().join(
        Markup(
            '<rect class="{}" x="{}" y="12" width="12" height="12"/><text x="{}" y="22">{}</text>'
        ).format(kind, x, x + 19, text)
        for x, kind, text in entries
    )
