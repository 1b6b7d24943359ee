"""The picture of a sweep: accuracy against what it takes of a language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from markupsafe import Markup

from red_ray.evaluation.report.svg import Axis, Plot, padded, write_number, write_percent
from red_ray.storage import writing
from tune.folder import STOPPED
from tune.points import Point
from tune.results import Row, in_words, pareto
from tune.space import SweepConfig

HUES = ("#7d8790", "#0b6cb3", "#e08a00", "#00866a", "#a9579a", "#c8480a", "#4f5bd5", "#8a6d00")
"""Of the goals, in their order; readable with the usual colour blindnesses. Further goals share."""

_SCALE = 1.55
_PANEL, _HEIGHT = 440, 330
_MARGIN, _HEAD, _LINE = 28, 96, 21

_STYLE = """
svg { font-family: system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif; }
.title { font-size: 21px; font-weight: 600; fill: #1d2227; }
.told { font-size: 14px; fill: #59626b; }
.key { font-size: 13.5px; fill: #1d2227; }
.tick, .axis-title { font-size: 9.5px; fill: #59626b; }
.axis-title { fill: #1d2227; }
.grid { stroke: #e6e3dc; stroke-width: 0.8; }
.notch { stroke: #b9bfc6; stroke-width: 0.8; }
.front { fill: none; stroke: #1d2227; stroke-width: 1.1; stroke-linejoin: round; }
.named { font-size: 10px; font-weight: 600; fill: #1d2227; stroke: #fff; stroke-width: 3px;
  paint-order: stroke; }
.limit { stroke: #c8480a; stroke-width: 1; stroke-dasharray: 4 3; }
.limit-name { font-size: 9px; fill: #c8480a; }
"""

_Across = Callable[[Row], float]


def write_plot(folder: Path, sweep: SweepConfig, rows: Sequence[Row]) -> tuple[Path, ...]:
    """Write `pareto.svg`, and `pareto.png` where the package that draws it is installed.

    Raises:
        OutputError: they cannot be written.
    """
    drawing = draw(sweep, rows)
    svg, png = folder / "pareto.svg", folder / "pareto.png"
    with writing(svg):
        svg.write_text(drawing, encoding="utf-8")
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        return (svg,)
    with writing(png):
        png.write_bytes(bytes(svg_to_bytes(svg_string=drawing, zoom=2)))
    return svg, png


def draw(sweep: SweepConfig, rows: Sequence[Row]) -> str:
    """The picture as one SVG that needs no style sheet."""
    able = [row for row in rows if row.counts]
    goals = list(dict.fromkeys(_point(row).goal for row in able))
    ordered = sorted(
        goals, key=lambda goal: min(_point(r).escalated for r in able if _point(r).goal == goal)
    )
    hues = {goal: HUES[min(at, len(HUES) - 1)] for at, goal in enumerate(ordered)}
    panels = [_usage(sweep, able, hues)]
    if any(row.record.calls for row in able):
        panels.append(_training(able, hues))
    width = 2 * _MARGIN + len(panels) * _PANEL * _SCALE
    keys = _keys(hues, width)
    top = _HEAD + _LINE * len(keys)
    height = top + _HEIGHT * _SCALE + 2 * _LINE + _MARGIN
    parts = [_head(sweep, rows), *keys]
    for at, panel in enumerate(panels):
        parts.append(_within(panel, _MARGIN + at * _PANEL * _SCALE, top))
    parts.append(_foot(sweep, able, height))
    whole = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:.0f} {1:.0f}" width="{0:.0f}" '
        'height="{1:.0f}"><style>{2}</style>'
        '<rect width="100%" height="100%" fill="#ffffff"/>{3}</svg>'
    ).format(width, height, Markup(_STYLE), Markup().join(parts))
    return str(whole) + "\n"


def _usage(sweep: SweepConfig, rows: Sequence[Row], hues: dict[str, str]) -> Markup:
    """Every point, by the share of texts that goes to the judge at prediction time."""
    shares = [_point(row).escalated for row in rows]
    limit = sweep.objective.escalated_at_most
    x = Axis(
        "texts escalated to the judge (estimated)",
        0,
        min(1.0, 1.08 * max(*shares, limit or 0.05)),
        write_percent,
    )
    plot = Plot(x, _accuracy(rows), height=_HEIGHT)

    def usage(row: Row) -> float:
        return _point(row).escalated

    marks = [_limits(plot, sweep), *_marks(plot, rows, pareto(rows), hues, usage)]
    return plot.draw(marks, "accuracy against the share of texts escalated")


def _training(rows: Sequence[Row], hues: dict[str, str]) -> Markup:
    """The best point of each setting, by what its training took of a judge."""
    best = list({row.record.id: row for row in reversed(rows)}.values())
    priced = any(row.cost_usd for row in rows)

    def spent(row: Row) -> float:
        return float(row.cost_usd or 0.0) if priced else float(row.record.calls)

    high = padded([0.0, *(spent(row) for row in best)], floor=0.0)[1]
    title = "cost of the judge in training, USD" if priced else "calls of the judge in training"
    plot = Plot(Axis(title, 0, high, write_number), _accuracy(rows), height=_HEIGHT)
    marks = _marks(plot, best, pareto(best, spent), hues, spent)
    return plot.draw(marks, f"accuracy against {title}, the best goal of each setting")


def _accuracy(rows: Sequence[Row]) -> Axis:
    low, high = padded((_point(row).assumed_accuracy for row in rows), floor=0.0, ceil=1.0)
    return Axis("accuracy with the judge's help (estimated)", low, high, write_percent)


def _limits(plot: Plot, sweep: SweepConfig) -> Markup:
    objective = sweep.objective
    line = Markup('<line class="limit" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
    name = Markup('<text class="limit-name" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    left, right = plot.across(plot.x.low), plot.across(plot.x.high)
    bottom, top = plot.up(plot.y.low), plot.up(plot.y.high)
    if objective.escalated_at_most is not None:
        x = plot.across(objective.escalated_at_most)
        told = f"at most {write_percent(objective.escalated_at_most)}"
        return line.format(x, x, bottom, top) + name.format(x - 4, bottom - 6, "end", told)
    wanted = objective.accuracy_at_least or 0.0
    if not plot.y.low <= wanted <= plot.y.high:
        return Markup()
    y = plot.up(wanted)
    told = f"at least {write_percent(wanted)}"
    return line.format(left, right, y, y) + name.format(right, y - 4, "end", told)


def _front(plot: Plot, front: Sequence[Row], across: _Across) -> Markup:
    """In steps: whoever may spend no more than between two points has the lower one."""
    places = [(plot.across(across(row)), plot.up(_point(row).assumed_accuracy)) for row in front]
    steps = places[:1]
    for (_, below), (x, y) in pairwise([*places, (plot.across(plot.x.high), places[-1][1])]):
        steps += [(x, below), (x, y)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in steps)
    return Markup('<polyline class="front" points="{}"/>').format(path)


def _marks(
    plot: Plot, rows: Sequence[Row], front: Sequence[Row], hues: dict[str, str], across: _Across
) -> list[Markup]:
    """The front, a dot for each row, those of the front larger, a ring around the chosen one."""
    best = {id(row) for row in front}
    ordered = sorted(rows, key=lambda row: id(row) in best)
    dots = [_dot(plot, row, hues, across, large=id(row) in best) for row in ordered]
    return [
        _front(plot, front, across),
        *dots,
        *(_chosen(plot, r, across) for r in rows if r.chosen),
    ]


def _dot(plot: Plot, row: Row, hues: dict[str, str], across: _Across, *, large: bool) -> Markup:
    one = _point(row)
    told = f"{in_words(row.record.params, tuple(row.record.params))}; {one.goal}: "
    told += f"{one.assumed_accuracy:.1%} at {one.escalated:.1%} escalated"
    return Markup(
        '<circle cx="{:.1f}" cy="{:.1f}" r="{}" fill="{}" fill-opacity="{}" stroke="#fff" '
        'stroke-width="0.6"><title>{}</title></circle>'
    ).format(
        plot.across(across(row)),
        plot.up(one.assumed_accuracy),
        3.4 if large else 2.6,
        hues[one.goal],
        1 if large else 0.55,
        told,
    )


def _chosen(plot: Plot, row: Row, across: _Across) -> Markup:
    x, y = plot.across(across(row)), plot.up(_point(row).assumed_accuracy)
    at_right = x > plot.across(plot.x.low + 0.75 * (plot.x.high - plot.x.low))
    return Markup(
        '<circle cx="{0:.1f}" cy="{1:.1f}" r="6.5" fill="none" stroke="#c8480a" '
        'stroke-width="1.8"/>'
        '<text class="named" x="{2:.1f}" y="{3:.1f}" text-anchor="{4}">chosen</text>'
    ).format(x, y, x - 9 if at_right else x + 9, y + 15, "end" if at_right else "start")


def _head(sweep: SweepConfig, rows: Sequence[Row]) -> Markup:
    n_settings = len({row.record.id for row in rows})
    n_goals = len(sweep.goals)
    right = write_percent(sweep.assumed_judge_accuracy)
    told = f"escalated texts go to a judge that is assumed right {right} of the time"
    n_stopped = len({row.record.id for row in rows if row.record.state == STOPPED})
    title = f"{n_settings} settings, {n_goals} {'goal' if n_goals == 1 else 'goals'} each"
    title += f"; {n_stopped} settings stopped early" if n_stopped else ""
    return Markup(
        '<text class="title" x="{0}" y="36">{1}</text>'
        '<text class="told" x="{0}" y="58">Estimates from cross-fitted training rows;</text>'
        '<text class="told" x="{0}" y="76">{2}</text>'
    ).format(_MARGIN, title, told)


def _keys(hues: dict[str, str], width: float) -> list[Markup]:
    """The legend, in as many lines as it takes."""
    lines: list[Markup] = []
    x, y, line = float(_MARGIN), float(_HEAD + 4), Markup()
    entry = Markup(
        '<circle cx="{:.1f}" cy="{:.1f}" r="5" fill="{}"/>'
        '<text class="key" x="{:.1f}" y="{:.1f}">{}</text>'
    )
    for goal, hue in hues.items():
        takes = 38 + 7.6 * len(goal)
        if x + takes > width - _MARGIN and line:
            lines.append(line)
            x, y, line = float(_MARGIN), y + _LINE, Markup()
        line += entry.format(x + 5, y - 4.5, hue, x + 16, y, goal)
        x += takes
    return [*lines, line]


def _foot(sweep: SweepConfig, rows: Sequence[Row], height: float) -> Markup:
    row = next(row for row in rows if row.chosen)
    one = _point(row)
    setting = in_words(row.record.params, sweep.varied) or "the only setting"
    told = f"{one.goal}: {one.assumed_accuracy:.1%} at {one.escalated:.1%} escalated"
    if row.record.calls:
        told += f", {row.record.calls:,} calls in training"
    return Markup(
        '<text class="key" x="{0}" y="{1:.0f}">'
        '<tspan font-weight="600" fill="#c8480a">chosen</tspan>  {2}</text>'
        '<text class="told" x="{0}" y="{3:.0f}">{4}</text>'
    ).format(_MARGIN, height - _MARGIN - _LINE + 4, setting, height - _MARGIN + 4, told)


def _within(panel: Markup, x: float, y: float) -> Markup:
    return Markup('<svg x="{:.0f}" y="{:.0f}" width="{:.0f}" height="{:.0f}">{}</svg>').format(
        x, y, _PANEL * _SCALE, _HEIGHT * _SCALE, panel
    )


def _point(row: Row) -> Point:
    if row.point is None:
        raise ValueError("a setting of no use has no point")
    return row.point
