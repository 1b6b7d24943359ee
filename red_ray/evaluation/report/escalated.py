"""What it brings to put the riskiest test rows to a judge, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from markupsafe import Markup

from red_ray.evaluation.report.charts import band_chart
from red_ray.evaluation.report.figures import (
    Figure,
    Tile,
    count,
    dollars,
    percent,
    percent_interval,
)
from red_ray.evaluation.report.source import AskedRows, EscalationPoint, Scorecard
from red_ray.evaluation.report.svg import Axis, Plot, padded, write_percent

_POLICIES = {
    "abstain": "counts as wrong",
    "answer_best": "keeps the model’s best label",
}


@dataclass(frozen=True, slots=True)
class Escalated:
    """The section; without a second point there is nothing to draw."""

    judge: str
    simulated: bool
    who: str
    whom: str
    tiles: tuple[Tile, ...]
    drawing: Markup | None
    caption: str


def escalated(card: Scorecard | None) -> Escalated | None:
    """The section, None where nobody was asked about test rows."""
    found = card.escalation if card else None
    if found is None or not found.curve:
        return None
    last = found.curve[-1]
    return Escalated(
        judge=found.judge,
        simulated=found.simulated,
        who="Simulated, no language model was asked:" if found.simulated else "Asked:",
        whom=f", about the {percent(last.escalated, 0)} of the test rows whose answer is most "
        "likely wrong, the riskiest first, once all other figures were fixed.",
        tiles=_tiles(found),
        drawing=_drawing(found.curve) if len(found.curve) > 1 else None,
        caption="Each dot is the accuracy over all test rows once the riskiest ones went to the "
        f"judge; the band is its 95 % interval. Below the shares: {_unit(found.curve)}.",
    )


def _tiles(found: AskedRows) -> tuple[Tile, ...]:
    first, last = found.curve[0], found.curve[-1]
    gain = f"{100 * (last.accuracy - first.accuracy):+.1f} points".replace("-", "−")
    bought = f"{count(last.calls)} requests bought the answers, retries included"
    if found.failed:
        policy = _POLICIES.get(found.on_failure, "")
        bought += f"; {count(found.failed)} gave no result, which {policy}"
    return (
        _accuracy(first, "Model alone", "its most probable label"),
        _accuracy(last, f"With {percent(last.escalated, 0)} escalated", gain),
        Tile("Questions", count(found.asked), bought),
        Tile("Price", dollars(last.cost_usd), _price_told(found)),
    )


def _price_told(found: AskedRows) -> str:
    if found.simulated:
        return "nothing was paid: the judge is simulated"
    if found.curve[-1].cost_usd is None:
        return "not known: set judge.prices"
    return "of these answers, whenever they were bought"


def _accuracy(point: EscalationPoint, name: str, note: str) -> Tile:
    found = Figure(point.accuracy, point.accuracy_ci)
    return Tile(name, percent(found.value), note, percent_interval(found))


def _drawing(points: Sequence[EscalationPoint]) -> Markup:
    x = Axis("test rows escalated, the riskiest first", 0, points[-1].escalated, write_percent)
    ends = [point.accuracy_ci for point in points]
    y = Axis("accuracy", *padded(chain.from_iterable(ends), floor=0, ceil=1), write_percent)
    at_tick = {round(tick, 6) for tick in x.ticks()}
    under = [
        (point.escalated, _cost(point, points))
        for point in points
        if round(point.escalated, 6) in at_tick
    ]
    return band_chart(
        [(point.escalated, point.accuracy) for point in points],
        ends,
        [_told(point) for point in points],
        Plot(x, y, height=300, under=under),
        "Accuracy over all test rows against the share of them that went to the judge",
    )


def _is_priced(points: Sequence[EscalationPoint]) -> bool:
    """Whether a price says more than the number of requests."""
    return bool(points[-1].cost_usd) and all(point.cost_usd is not None for point in points)


def _unit(points: Sequence[EscalationPoint]) -> str:
    return "the price in USD" if _is_priced(points) else "requests to the judge"


def _cost(point: EscalationPoint, points: Sequence[EscalationPoint]) -> str:
    return dollars(point.cost_usd) if _is_priced(points) else count(point.calls)


def _told(point: EscalationPoint) -> str:
    price = "" if point.cost_usd is None else f", {dollars(point.cost_usd)}"
    return (
        f"{percent(point.escalated, 0)} escalated: accuracy {percent(point.accuracy)}, "
        f"{count(point.calls)} requests{price}"
    )
