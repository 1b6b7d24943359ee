"""What asking a judge about the riskiest test rows brings, and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from red_ray.core.metrics import wilson_interval
from red_ray.core.router import top_labels
from red_ray.escalation import Escalator, part_of
from red_ray.evaluation.scorecard import DIGITS
from red_ray.model import Assessment, RedModel
from red_ray.types import Decision, Outcome, Verdict

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Json = dict[str, Any]

FIRST_SHARES = (0.0, 0.01, 0.02)
STEP = 0.05
"""Shares of a curve: close together where most of the errors are."""


@dataclass(frozen=True, slots=True)
class EscalatedRows:
    """Test rows, the riskiest first, after the judge was asked about some of them.

    Attributes:
        alone: whether the model's most probable label is true, shape (n_rows,).
        asked: whether the answer is right after the judge, of the first rows, shape (n_asked,).
        verdicts: on those; None where the budget did not reach one.
    """

    alone: Bools
    asked: Bools
    verdicts: tuple[Verdict | None, ...]


async def escalate_riskiest(
    model: RedModel,
    escalator: Escalator,
    texts: Sequence[str],
    labels: Sequence[str],
    vectors: Floats,
    assessment: Assessment,
    share: float,
) -> EscalatedRows:
    """Ask the judge about the test rows whose answer is most likely wrong.

    A row counts as right by its label alone, as in the scorecard's accuracy: unasked by the most
    probable one, asked by the judge's; a *none* is never right. No result is wrong by `abstain`,
    and the most probable label by `answer_best`.

    Args:
        model: whose answers they are.
        escalator: asks the judge.
        texts: of the rows.
        labels: their true ones; nobody is shown them.
        vectors: embeddings, shape (n_rows, dim).
        assessment: of the rows.
        share: of the rows that are asked about, 0 to 1.

    Raises:
        JudgeError: the judge refuses or cannot be reached.
        StorageError: a verdict could not be stored.
    """
    best = [model.labels[int(label)] for label in top_labels(assessment.label_proba, 1)[:, 0]]
    order = np.argsort(-model.answer_risk(assessment), kind="stable")
    rows = order[: n_of(share, len(order))]
    doubtful = part_of(assessment, rows)
    verdicts = await escalator.ask([texts[row] for row in rows], vectors[rows], doubtful)
    asked = [
        escalator.settle(_to_ask(best[row]), proba, verdict).label == labels[row]
        for row, proba, verdict in zip(rows, doubtful.distribution, verdicts, strict=True)
    ]
    alone = [best[row] == labels[row] for row in order]
    return EscalatedRows(np.array(alone, bool), np.array(asked, bool), tuple(verdicts))


def curve(rows: EscalatedRows, shares: Sequence[float]) -> list[Json]:
    """Accuracy over all rows and price, where so many of the riskiest ones are asked about.

    It ends where the budget did, at the first row without a verdict: more was never asked.

    The price is what the answers cost when they were bought, now or by an earlier command; None
    where it is not known.
    """
    reached, n_rows = _n_reached(rows), len(rows.alone)
    asked = [share for share in shares if n_of(share, n_rows) <= reached]
    if len(asked) < len(shares) and (not asked or n_of(asked[-1], n_rows) < reached):
        asked.append(reached / n_rows)
    return [_point(rows, share) for share in asked]


def shares_up_to(share: float) -> list[float]:
    """0, 1, 2, 5, 10, 15 % and so on, and `share` itself."""
    steps = np.arange(1, round(1 / STEP) + 1) * STEP
    grid = [*FIRST_SHARES, *(round(float(step), 2) for step in steps)]
    return [one for one in grid if one < share] + [share]


def summary(rows: EscalatedRows) -> Json:
    """How many rows have a verdict, and how many of those gave no result."""
    found = [verdict.outcome for verdict in rows.verdicts if verdict is not None]
    answered = sum(outcome in (Outcome.LABEL, Outcome.NONE) for outcome in found)
    return {"asked": len(found), "failed": len(found) - answered}


def n_of(share: float, n_rows: int) -> int:
    """Rows that make up a share of all."""
    return round(share * n_rows)


def _n_reached(rows: EscalatedRows) -> int:
    """Rows before the first one that the budget left unasked."""
    return next((n for n, one in enumerate(rows.verdicts) if one is None), len(rows.verdicts))


def _to_ask(label: str) -> Decision:
    """A decision with the most probable label, *none* excluded."""
    return Decision(label, 0.0, "escalate", "model", (), "")


def _point(rows: EscalatedRows, share: float) -> Json:
    n = min(n_of(share, len(rows.alone)), len(rows.asked))
    n_right = int(rows.asked[:n].sum()) + int(rows.alone[n:].sum())
    verdicts = [verdict for verdict in rows.verdicts[:n] if verdict is not None]
    low, high = wilson_interval(n_right, len(rows.alone))
    return {
        "escalated": share,
        "accuracy": round(n_right / len(rows.alone), DIGITS),
        "accuracy_ci": [round(low, DIGITS), round(high, DIGITS)],
        "calls": sum(verdict.requests for verdict in verdicts),
        "cost_usd": _cost(verdicts),
    }


def _cost(verdicts: Sequence[Verdict]) -> float | None:
    costs = [verdict.cost_usd for verdict in verdicts if verdict.requests]
    known = [cost for cost in costs if cost is not None]
    return round(sum(known), DIGITS) if len(known) == len(costs) else None
