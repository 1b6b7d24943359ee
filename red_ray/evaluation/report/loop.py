"""What the loop did: what it asked the judge, what came back, what the model gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from markupsafe import Markup

from red_ray.evaluation.report.charts import Points, line_chart
from red_ray.evaluation.report.figures import (
    Figure,
    Tile,
    count,
    decimal,
    decimal_interval,
    dollars,
    figure,
    number,
    percent,
    percent_tile,
    plural,
)
from red_ray.evaluation.report.source import Details, RunFiles
from red_ray.evaluation.report.svg import Axis, padded, write_number, write_percent
from red_ray.types import Iteration

_STOP_REASONS = {
    "max_iterations": "the limit of iterations was reached",
    "budget": "the judge’s budget was spent",
    "no_informative": "no pool text was uncertain enough to be worth a question",
    "pool_exhausted": "no pool text with a label for its best answer was left",
    "all_predicted_done": "the iterations over all predicted texts were done",
    "plateau": "the model no longer gained",
}
_ANSWERS = {
    "label": "label, row added",
    "none": "none of the candidates",
    "unreadable": "unreadable",
    "failed": "failed or timed out",
    "other": "label, no row added",
}
_NO_LOOP = (
    "No judge was asked. Train with a pool and a judge to see what its labels bring: "
    "`red-ray train --train F --pool F --judge SPEC --out RUN`."
)


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with its title and caption; without data only a line that says what brings it."""

    title: str
    caption: str
    drawing: Markup | None = None
    absent: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A kind of answer within an iteration; `width` in % of the busiest iteration."""

    kind: str
    n: int
    width: str


@dataclass(frozen=True, slots=True)
class Round:
    """An iteration with what came of its questions."""

    iteration: Iteration
    segments: tuple[Segment, ...]
    precision: str
    likelihood: str
    uncertainty: str
    judge_s: str


@dataclass(frozen=True, slots=True)
class JudgeView:
    """The judge’s section; `absent` stands in its place where nobody was asked."""

    spec: str
    simulated: bool
    tiles: tuple[Tile, ...]
    rounds: tuple[Round, ...]
    legend: tuple[tuple[str, str], ...]
    totals: str
    stopped: str
    absent: str


def is_simulated(files: RunFiles) -> bool:
    """Whether the judge only played one: it looked up hidden labels."""
    return (files.judge_spec or "").startswith("simulated")


def learning_charts(files: RunFiles) -> tuple[Chart, ...]:
    """The charts of the learning section; empty where there was no loop."""
    curve = _estimated_accuracy(files.details)
    if not files.iterations:
        return (curve,) if curve.drawing else ()
    return (
        curve,
        _rows_against_calls(files.iterations),
        _likelihood(files.iterations),
        _label_precision(files.iterations),
        _uncertainty(files.iterations),
    )


def no_loop(files: RunFiles) -> str:
    """Why there is nothing to show of a loop, and what would bring it."""
    if files.iterations:
        return ""
    stopped = _stopped(files.details)
    if written := _written(files.details):
        return f"There was no loop. {written} {stopped}".strip()
    if files.judge_spec is None:
        return _NO_LOOP
    return (
        f"The judge was never asked. {stopped}"
        if stopped
        else (
            "The judge was never asked: a loop also needs a pool of unlabelled texts (`--pool F`)."
        )
    )


def judge_view(files: RunFiles) -> JudgeView:
    """What the judge was asked and what it answered."""
    return JudgeView(
        spec=files.judge_spec or "",
        simulated=is_simulated(files),
        tiles=_judge_tiles(_judge_of(files)),
        rounds=_rounds(files.iterations),
        legend=_legend(files.iterations),
        totals=" ".join(filter(None, (_totals(files.iterations), _written(files.details)))),
        stopped=_stopped(files.details),
        absent=no_loop(files),
    )


def _estimated_accuracy(details: Details | None) -> Chart:
    title = "Accuracy as rows are added"
    points = _estimates(details) if details else []
    if len(points) < 2:
        told = "Appears when accuracy was estimated at two or more sizes: evaluate a run of a loop."
        return Chart(title, "", absent=told)
    caption = (
        "An estimate, not the test accuracy: each row that the user labelled is scored by a "
        "model that has not seen it (cross-fitting), while the judge’s rows are added."
    )
    x = Axis("training rows", *padded((p[0] for p in points), floor=0), write_number, whole=True)
    y = Axis("estimated accuracy", *padded((p[1] for p in points), floor=0, ceil=1), write_percent)
    told = f"Estimated accuracy from {percent(points[0][1])} to {percent(points[-1][1])}"
    return Chart(title, caption, line_chart(points, x=x, y=y, description=told))


def _estimates(details: Details) -> list[tuple[float, float]]:
    """(training rows, estimated accuracy) where it was measured, the final model at the end."""
    found = {point.n_train: number(point.estimated_accuracy) for point in details.learning_curve}
    by_user = details.labelled_by == "user"
    if found and by_user and details.n_train is not None and details.estimate is not None:
        found[details.n_train] = number(details.estimate.accuracy)
    return sorted((float(n), value) for n, value in found.items() if value is not None)


def _rows_against_calls(iterations: Sequence[Iteration]) -> Chart:
    calls = list(
        accumulate((round_.n_requests + round_.n_cached for round_ in iterations), initial=0)
    )
    seed = iterations[0].n_train - iterations[0].n_labelled
    rows = [seed, *(round_.n_train for round_ in iterations)]
    points = [(float(x), float(y)) for x, y in zip(calls, rows, strict=True)]
    end = float(max(1, calls[-1]))
    caption = (
        "What the judge’s calls bought. On the dashed line every call adds a row; "
        "below it, calls were spent on refusals, retries, planted questions and unreadable answers."
    )
    drawing = line_chart(
        points,
        x=Axis("calls to the judge", 0, 1.03 * end, write_number, whole=True),
        y=Axis("training rows", 0, 1.05 * max(*rows, seed + end), write_number, whole=True),
        description=f"Training rows from {seed:,} to {rows[-1]:,} in {calls[-1]:,} calls",
        reference=((0.0, float(seed)), (end, seed + end)),
        reference_name="a row per call",
    )
    return Chart("Rows for calls", caption, drawing)


def _likelihood(iterations: Sequence[Iteration]) -> Chart:
    return _by_iteration(
        [(float(round_.iteration), round_.log_likelihood) for round_ in iterations],
        title="Log-likelihood",
        axis="mean log-probability",
        caption=(
            "How probable the model finds the user’s labels when it has not seen them "
            "(cross-fitted, an estimate). Nearer to zero is better; a plateau ends the loop."
        ),
        absent="Appears once an iteration refits the router (`loop.recalibrate_every`).",
    )


def _label_precision(iterations: Sequence[Iteration]) -> Chart:
    return _by_iteration(
        [(float(round_.iteration), round_.label_precision) for round_ in iterations],
        title="Precision of the judge’s labels",
        axis="true labels",
        caption="Share of the labels added in an iteration that agree with the hidden true label.",
        absent="Unknown: the pool has no hidden labels to hold the judge’s against.",
        share=True,
    )


def _uncertainty(iterations: Sequence[Iteration]) -> Chart:
    return _by_iteration(
        [(float(round_.iteration), round_.mean_uncertainty) for round_ in iterations],
        title="Uncertainty of the pool",
        axis="mean uncertainty",
        caption="Mean uncertainty of the pool texts before each iteration; it should fall.",
        absent="Appears with the first iteration.",
    )


def _by_iteration(
    found: Sequence[tuple[float, float | None]],
    *,
    title: str,
    axis: str,
    caption: str,
    absent: str,
    share: bool = False,
) -> Chart:
    points: Points = [(x, y) for x, y in found if y is not None and number(y) is not None]
    if not points:
        return Chart(title, "", absent=absent)
    ends = padded((y for _, y in points), ceil=1) if share else padded(y for _, y in points)
    drawing = line_chart(
        points,
        x=Axis("iteration", 0.5, found[-1][0] + 0.5, write_number, whole=True),
        y=Axis(axis, *ends, write_percent if share else write_number),
        description=f"{title} from {points[0][1]:.3g} to {points[-1][1]:.3g}",
    )
    return Chart(title, caption, drawing)


def _judge_of(files: RunFiles) -> dict[str, Any] | None:
    """The judge's figures; without test rows they stand in the details alone."""
    if files.scorecard is not None:
        return files.scorecard.judge
    return files.details.judge if files.details else None


def _judge_tiles(table: dict[str, Any] | None) -> tuple[Tile, ...]:
    if not table:
        return ()
    calls, cost = figure(table, "calls"), figure(table, "cost_usd")
    per_call, unreadable = figure(table, "labels_per_call"), figure(table, "unreadable")
    tiles = (
        Tile(
            "Calls",
            count(calls.value if calls else None),
            "requests, retries included",
        ),
        Tile(
            "Rows per call",
            decimal(per_call.value if per_call else None, 2),
            "rows added to training, right or wrong, for each call",
            decimal_interval(per_call, 2),
        ),
        percent_tile(
            table,
            "label_precision",
            name="Label precision",
            note="added rows whose label is the hidden true one, where known",
        ),
        percent_tile(
            table,
            "validation_rate",
            name="Names a label",
            note="readable answers that name a label; the others say none",
        ),
        percent_tile(
            table,
            "gold_accuracy",
            name="Judge is right",
            note="of the planted questions, about rows whose label is known",
        ),
        Tile(
            "Unreadable",
            _rate_or_count(unreadable.value if unreadable else None),
            _unreadable_note(figure(table, "failed")),
        ),
    )
    own = "this run’s own" if table.get("from_ledger") else "all"
    note = f"of {own} calls, as far as the judge has a price"
    return (*tiles, Tile("Cost", dollars(cost.value), note)) if cost else tiles


def _unreadable_note(failed: Figure | None) -> str:
    note = "answers that name neither a candidate nor none"
    return f"{note}; {count(failed.value)} more failed or timed out" if failed else note


def _rate_or_count(value: float | None) -> str:
    """The contract leaves open whether it is a share: a fraction can only be one."""
    return percent(value) if value is not None and 0 < value < 1 else count(value)


def _rounds(iterations: Sequence[Iteration]) -> tuple[Round, ...]:
    widest = max((sum(n for _, n in _answers(round_)) for round_ in iterations), default=0)
    return tuple(
        Round(
            iteration=round_,
            segments=tuple(
                Segment(kind, n, f"{100 * n / widest:.2f}") for kind, n in _answers(round_) if n
            ),
            precision=percent(round_.label_precision),
            likelihood=decimal(round_.log_likelihood),
            uncertainty=decimal(round_.mean_uncertainty),
            judge_s=decimal(round_.judge_s, 1),
        )
        for round_ in iterations
    )


def _answers(round_: Iteration) -> list[tuple[str, int]]:
    known = {
        "label": round_.n_labelled,
        "none": round_.n_none,
        "unreadable": round_.n_unreadable,
        "failed": round_.n_failed,
    }
    # A label that was named but not added, for example of a text that already had one.
    rest = max(0, round_.n_asked - sum(known.values()))
    return [*known.items(), ("other", rest)]


def _legend(iterations: Sequence[Iteration]) -> tuple[tuple[str, str], ...]:
    seen = {kind for round_ in iterations for kind, n in _answers(round_) if n}
    return tuple((kind, name) for kind, name in _ANSWERS.items() if kind in seen)


def _totals(iterations: Sequence[Iteration]) -> str:
    if not iterations:
        return ""
    asked = sum(round_.n_asked for round_ in iterations)
    labelled = sum(round_.n_labelled for round_ in iterations)
    cached = sum(round_.n_cached for round_ in iterations)
    rounds = plural(len(iterations), "iteration")
    told = f"{plural(asked, 'question')} in {rounds} added {plural(labelled, 'row')} to training"
    return f"{told}; {plural(cached, 'answer')} came from the ledger without a call."


def _written(details: Details | None) -> str:
    """What the judge wrote for labels with few texts, and what came of it."""
    written = details.paraphrases if details else None
    if written is None:
        return ""
    told = (
        f"The judge wrote {plural(written.n_written, 'paraphrase')} for "
        f"{plural(written.n_labels, 'label')} with few texts: "
    )
    if not written.n_learned:
        return f"{told}no expert has learned one, or labels changed since and it learned anew."
    return (
        f"{told}{written.n_learned:,} were learned, by {', '.join(written.experts)}, where "
        "cross-fitted accuracy rose. No figure is over one of them."
    )


def _stopped(details: Details | None) -> str:
    reason = details.stop_reason if details else ""
    return f"The loop stopped because {_STOP_REASONS.get(reason, reason)}." if reason else ""
