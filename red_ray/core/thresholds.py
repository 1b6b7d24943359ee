"""Thresholds from goals: what a router must do for a promise to hold on texts it has not seen.

A text is escalated where the risk of its answer reaches a threshold, and fits no label where the
probability of *none* reaches another. Both come from rows whose truth is known, and rest on
counting alone: whatever the risks are worth, the promise holds for new rows of the same kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil, floor, log

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrc, betaincinv

from red_ray.errors import GoalError
from red_ray.types import LabelledBy

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]

CATCH, PRECISION, ESCALATE = "catch_errors", "precision", "escalate_at_most"
FALSE_ALARM, NONE_RECALL = "none_false_alarm", "none_recall"
AT_MOST = (ESCALATE, FALSE_ALARM)
"""Goals that a higher share relaxes; a lower one relaxes the others."""

N_STEPS = 100
"""Thresholds that are tested for a precision: finer steps only end the sequence sooner."""

N_FORGIVEN = 2
"""Errors that the first step of that sequence bears, so that no single bad row ends it."""

N_POINTS = 101
"""Points of a curve, the threshold that was chosen aside."""

TINY = 1e-9
"""What rounding may take from a chance: 0.9 in the last digit must not cost a row."""


@dataclass(frozen=True, slots=True)
class CalibrationRows:
    """Rows whose truth is known, by models that had not seen them.

    Attributes:
        label_risk: probability that the best label is wrong, given that one fits, shape (n_rows,).
        right: whether the best label is the true one, shape (n_rows,).
        offered: whether the true label is among those that a judge would be offered, (n_rows,).
        none: probability that no label fits, shape (n_rows,).
        none_out_of_scope: the same of texts that fit no label, shape (n_oos,).
    """

    label_risk: Doubles
    right: Bools
    offered: Bools
    none: Doubles
    none_out_of_scope: Doubles

    def risk(self, none_threshold: float) -> Doubles:
        """See `answer_risk`."""
        return answer_risk(self.label_risk, self.none, none_threshold)

    def wrong(self, none_threshold: float) -> Bools:
        """Where the model's own answer, a label or *none*, is not the truth."""
        return ~self.right | (self.none >= none_threshold)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where decisions change: `escalate` on the risk of an answer, `none` on its probability.

    None of `escalate` escalates nothing.
    """

    escalate: float | None
    none: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What an escalation threshold does to the calibration rows; bands are pointwise.

    `catch` is None where there are no errors, `precision` where everything is escalated.
    """

    threshold: float
    escalated: float
    escalated_band: tuple[float, float]
    catch: float | None
    catch_band: tuple[float, float]
    precision: float | None
    precision_band: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Promise:
    """Where thresholds come from: what was asked for, and the rows that it was counted on.

    Attributes:
        thresholds: what follows.
        goals: shares by name.
        confidence: of each of them.
        source: `rows`, whose promise is a guarantee, or `cross_fitted`, whose is an estimate.
        data_hash: SHA-256 of the rows' texts and labels; empty for cross-fitted training rows,
            which stand in the bundle.
        curve: what the chosen threshold does to the rows, and what others would.
        n_rows: rows that fit a label.
        n_errors: of them, those that the model alone gets wrong.
        n_out_of_scope: rows that fit none.
        stale: why the rows do not cover the promise any more, since labels were changed; empty
            where they do.
        uncovered: labels that came by such a change, and of which no row is.
        labelled_by: who labelled the rows; what rests on a judge's labels errs where it erred.
    """

    thresholds: Thresholds
    goals: Mapping[str, float]
    confidence: float
    source: str
    data_hash: str
    curve: tuple[CurvePoint, ...]
    n_rows: int
    n_errors: int
    n_out_of_scope: int
    stale: str = ""
    uncovered: tuple[str, ...] = ()
    labelled_by: LabelledBy = "user"


def promise(
    rows: CalibrationRows,
    goals: Mapping[str, float],
    *,
    confidence: float,
    none_default: float,
    source: str,
    data_hash: str = "",
    labelled_by: LabelledBy = "user",
) -> Promise:
    """Derive thresholds and keep where they come from; arguments and errors as of `derive`."""
    thresholds = derive(rows, goals, confidence, none_default)
    return Promise(
        thresholds=thresholds,
        goals=dict(goals),
        confidence=confidence,
        source=source,
        data_hash=data_hash,
        curve=tuple(curve(rows, thresholds, confidence)),
        n_rows=len(rows.none),
        n_errors=int(rows.wrong(thresholds.none).sum()),
        n_out_of_scope=len(rows.none_out_of_scope),
        labelled_by=labelled_by,
    )


def answer_risk(label_risk: Doubles, none: Doubles, none_threshold: float) -> Doubles:
    """Probability that the model's own answer is wrong, shape (n_rows,).

    The answer is *none* where `none` reaches its threshold, else the best label. Below it `none`
    has no say: as a factor on the label's probability it ranks errors worse (measured on texts
    held back from training, 12 sets: 95 % of the errors cost 40 % of the texts instead of 37 %).
    """
    return np.asarray(np.where(none >= none_threshold, 1 - none, label_risk))


def derive(
    rows: CalibrationRows, goals: Mapping[str, float], confidence: float, none_default: float
) -> Thresholds:
    """The thresholds under which the goals hold, each with the stated confidence.

    Of the escalation thresholds that keep all goals the one is taken that escalates least; where
    `escalate_at_most` stands alone, the one that escalates most. All goals but `none_recall` are
    about texts that fit a label. Where `none_false_alarm` sets the threshold of *none*, which the
    other goals are then counted under, the row it stands on counts against each of them: else
    two cuts through the same rows would promise what one does (simulated at confidence 0.9, with
    `escalate_at_most`: kept in 0.87 of the draws).

    Args:
        rows: with a known truth.
        goals: shares in (0, 1) by name.
        confidence: of each promise, over the draw of the rows.
        none_default: threshold of *none* where no goal is about it.

    Raises:
        GoalError: there are too few rows for a promise, or the goals cannot all hold.
    """
    try:
        return _derived(rows, goals, confidence, none_default)
    except _Clash as clash:
        ways = _ways_out(rows, goals, confidence, none_default, clash.names)
        told = f"{' or '.join(ways)} can be had" if ways else "relax more than one"
        raise GoalError(f"{clash.why}; {told}, or give more calibration rows") from None


def curve(rows: CalibrationRows, thresholds: Thresholds, confidence: float) -> list[CurvePoint]:
    """Recall of errors, precision and share escalated, from nothing escalated to everything.

    The escalation threshold itself is among the points.
    """
    risk, wrong = rows.risk(thresholds.none), rows.wrong(thresholds.none)
    if not len(risk):
        return []
    ordered = np.sort(risk)[::-1]
    ranks = np.unique(np.linspace(0, len(risk), N_POINTS).round().astype(int))
    above = [float(np.nextafter(ordered[0], np.inf))]
    chosen = [] if thresholds.escalate is None else [thresholds.escalate]
    cuts = {*above, *chosen, *(float(ordered[rank - 1]) for rank in ranks if rank)}
    return [point(risk, wrong, threshold, confidence) for threshold in sorted(cuts, reverse=True)]


def point(risk: Doubles, wrong: Bools, threshold: float, confidence: float) -> CurvePoint:
    """What one threshold does to some rows."""
    escalated = risk >= threshold
    n, n_escalated = len(risk), int(escalated.sum())
    n_wrong, n_caught = int(wrong.sum()), int((wrong & escalated).sum())
    n_alone, n_right = n - n_escalated, int((~wrong & ~escalated).sum())
    return CurvePoint(
        threshold=threshold,
        escalated=n_escalated / n if n else 0.0,
        escalated_band=band(n_escalated, n, confidence),
        catch=n_caught / n_wrong if n_wrong else None,
        catch_band=band(n_caught, n_wrong, confidence),
        precision=n_right / n_alone if n_alone else None,
        precision_band=band(n_right, n_alone, confidence),
    )


def band(hits: int, n: int, confidence: float) -> tuple[float, float]:
    """Exact two-sided interval of a share. Source: Clopper and Pearson (1934)."""
    each = (1 + confidence) / 2
    return at_least(hits, n, each), at_most(hits, n, each)


def at_least(hits: int, n: int, confidence: float) -> float:
    """What a share is at least, with the stated confidence; 0 without a hit."""
    return 0.0 if not hits else float(betaincinv(hits, n - hits + 1, 1 - confidence))


def at_most(hits: int, n: int, confidence: float) -> float:
    """What a share is at most, with the stated confidence; 1 where all are hits."""
    return 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, confidence))


def rows_needed(share: float, confidence: float, n_exceptions: int = 0) -> int:
    """Rows that promise `share` with so many exceptions: 0.95 at 0.9 takes 45 without any."""
    least = max(1, ceil(log(1 - confidence) / log(share) - TINY))
    if not n_exceptions:
        return least
    least = most = max(least, n_exceptions + 1)
    while bdtr(n_exceptions, most, 1 - share) > 1 - confidence:
        most *= 2
    n_rows = np.arange(least, most + 1)
    fine = bdtr(n_exceptions, n_rows, 1 - share) <= 1 - confidence + TINY
    return int(n_rows[fine.argmax()])


class _Clash(Exception):
    """Goals that cannot all hold: `why`, and the `names` of those that one might relax."""

    def __init__(self, why: str, *names: str) -> None:
        super().__init__(why, names)
        self.why, self.names = why, names


def _derived(
    rows: CalibrationRows, goals: Mapping[str, float], confidence: float, none_default: float
) -> Thresholds:
    none = _none_threshold(rows, goals, confidence, none_default)
    risk, wrong = rows.risk(none), rows.wrong(none)
    escalating = risk.copy()
    if FALSE_ALARM in goals:
        edge = np.where(rows.none < none, rows.none, -np.inf).argmax()
        risk[edge], wrong[edge], escalating[edge] = -np.inf, True, np.inf
    most = catching = precise = None
    if CATCH in goals:
        catching = _catching(risk[wrong], len(risk), goals[CATCH], confidence)
    if ESCALATE in goals:
        most = _above_all_but(escalating, goals[ESCALATE], confidence, ESCALATE, "texts")
    if PRECISION in goals:
        precise = _precise(risk, wrong, goals[PRECISION], confidence)
    chosen = catching if precise is None else _least_escalating(risk, catching, precise, goals)
    if chosen is not None and most is not None and chosen < most:
        wanted = [name for name in (CATCH, PRECISION) if name in goals]
        needed = at_most(int((risk >= chosen).sum()), len(risk), confidence)
        raise _Clash(
            f"{_stated(goals, *wanted)} may take {needed:.1%} of the texts, and "
            f"{_stated(goals, ESCALATE)} forbids it",
            *wanted,
            ESCALATE,
        )
    escalate = most if chosen is None else chosen
    return Thresholds(None if escalate == np.inf else escalate, none)


def _ways_out(
    rows: CalibrationRows,
    goals: Mapping[str, float],
    confidence: float,
    none_default: float,
    names: Sequence[str],
) -> list[str]:
    """Of each of these goals the nearest share, in steps of 0.01, under which all of them hold."""
    kept = {name: goals[name] for name in goals if name in (*names, FALSE_ALARM, NONE_RECALL)}
    found = []
    for name in names:
        hundredths = goals[name] * 100
        if name in AT_MOST:
            steps = range(floor(hundredths + TINY) + 1, 100)
        else:
            steps = range(ceil(hundredths - TINY) - 1, 0, -1)
        for share in (step / 100 for step in steps):
            with suppress(_Clash, GoalError):
                _derived(rows, kept | {name: share}, confidence, none_default)
                found.append(f"{name} {share:g}")
                break
    return found


def _none_threshold(
    rows: CalibrationRows, goals: Mapping[str, float], confidence: float, default: float
) -> float:
    """The threshold of *none*: the lowest that is calm, else the highest that keeps the recall.

    Where both are asked for, the first finds more of the texts that fit no label.
    """
    calm = recalling = None
    if FALSE_ALARM in goals:
        share = goals[FALSE_ALARM]
        calm = _above_all_but(rows.none, share, confidence, FALSE_ALARM, "texts that fit a label")
    if NONE_RECALL in goals:
        share = goals[NONE_RECALL]
        recalling = _reached_by(
            rows.none_out_of_scope, share, confidence, NONE_RECALL, "texts that fit no label"
        )
    if calm is not None and recalling is not None and recalling < calm:
        both = NONE_RECALL, FALSE_ALARM
        raise _Clash(f"{_stated(goals, *both)} cannot both be promised", *both)
    found = calm if calm is not None else recalling
    return default if found is None else found


def _catching(errors: Doubles, n_rows: int, share: float, confidence: float) -> float:
    """The highest threshold that this share of the errors reaches."""
    needed = rows_needed(share, confidence, int(np.isneginf(errors).sum()))
    if len(errors) < needed:
        rate = len(errors) / n_rows if n_rows else 0.0
        about = f"about {ceil(needed / rate):,} rows" if rate else "more rows"
        raise GoalError(
            f"catch_errors {share:g} at confidence {confidence:g} needs at least {needed} errors "
            f"among the rows, and there are {len(errors)} among {n_rows:,}: "
            f"give {about}, or lower the goal"
        )
    return _reached_by(errors, share, confidence, CATCH, "errors")


def _reached_by(values: Doubles, share: float, confidence: float, goal: str, what: str) -> float:
    """The highest value that at least `share` of new values reach.

    The k-th smallest of n is reached by that share where no more than 1 - share lies below, which
    is so with the chance that a binomial of n and 1 - share reaches k; ties only raise it.
    """
    n, needed = len(values), rows_needed(share, confidence)
    if n < needed:
        raise GoalError(_too_few(goal, share, confidence, needed, n, what))
    # bdtrc(k - 1, n, p): the chance of k or more.
    kept = bdtrc(np.arange(n), n, 1 - share) >= confidence - TINY
    return float(np.sort(values)[np.flatnonzero(kept)[-1]])


def _above_all_but(values: Doubles, share: float, confidence: float, goal: str, what: str) -> float:
    """The lowest threshold that at most `share` of new values reach."""
    n, needed = len(values), rows_needed(1 - share, confidence)
    if n < needed:
        raise GoalError(_too_few(goal, share, confidence, needed, n, what))
    kept = bdtr(np.arange(n), n, 1 - share) >= confidence - TINY
    return float(np.nextafter(np.sort(values)[np.flatnonzero(kept)[0]], np.inf))


def _precise(risk: Doubles, wrong: Bools, share: float, confidence: float) -> Doubles:
    """Thresholds below which answers are that precise, rising.

    Tested one after the other from the surest rows on, until one fails: so all that passed hold
    together with the stated confidence, which a scan for the best one would not give. Where they
    stand follows from the risks alone, and rows of one risk are answered or escalated together.

    Source: fixed-sequence testing, Angelopoulos et al., Learn then Test (2021).
    """
    n, needed = len(risk), rows_needed(share, confidence)
    if n < needed:
        raise GoalError(_too_few(PRECISION, share, confidence, needed, n, "texts"))
    first = min(n, rows_needed(share, confidence, N_FORGIVEN))
    order = np.argsort(risk, kind="stable")
    ordered, n_wrong = risk[order], wrong[order].cumsum()
    steps = np.linspace(first, n, N_STEPS).round().astype(int)
    alone = np.unique(np.searchsorted(ordered, ordered[steps - 1], side="right"))
    failed = bdtr(n_wrong[alone - 1], alone, 1 - share) > 1 - confidence + TINY
    if failed[0]:
        raise _Clash(
            f"{_stated({PRECISION: share}, PRECISION)} at confidence {confidence:g} cannot be "
            f"promised: of the {alone[0]} surest rows {n_wrong[alone[0] - 1]} are wrong",
            PRECISION,
        )
    n_passed = int(failed.argmax()) if failed.any() else len(alone)
    return np.asarray(np.append(ordered, np.inf)[alone[:n_passed]])


def _least_escalating(
    risk: Doubles, catching: float | None, precise: Doubles, goals: Mapping[str, float]
) -> float:
    """The highest threshold that catches and is tested to be precise."""
    if catching is None:
        return float(precise[-1])
    fitting = precise[precise <= catching]
    if not len(fitting):
        alone, needed = (int((risk < cut).sum()) for cut in (catching, precise[0]))
        raise _Clash(
            f"{_stated(goals, CATCH, PRECISION)} cannot both be promised: the first leaves {alone} "
            f"of {len(risk):,} texts answered, and the second is told from {needed} at least",
            CATCH,
            PRECISION,
        )
    return float(fitting[-1])


def _too_few(goal: str, share: float, confidence: float, needed: int, found: int, what: str) -> str:
    return (
        f"{goal} {share:g} at confidence {confidence:g} needs at least {needed} {what} among the "
        f"rows, and there are {found}: give more --calibration rows, or relax the goal"
    )


def _stated(goals: Mapping[str, float], *names: str) -> str:
    return " and ".join(f"{name} {goals[name]:g}" for name in names)
