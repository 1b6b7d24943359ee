"""Whether a judge prefers a position, and how far two judges agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from red_ray.core.metrics import Interval, wilson_interval
from red_ray.evaluation.audit.figures import Answer
from red_ray.types import Outcome

Ints = NDArray[np.int64]

N_SWAPS = 2000
"""Random swaps of the test: fixes a p-value of 0.05 to about 0.005."""


@dataclass(frozen=True, slots=True)
class PositionBias:
    """Where the answers stand among the candidates, against where the truth stands.

    Over the questions that offered the truth and got a label for an answer.

    Attributes:
        n: such questions.
        answers: share of the answers at each position, first to last.
        truths: share of the truths there.
        moved: share of the answers that stand at other positions than the truths do: half the
            sum of the absolute differences, 0 to 1.
        p_value: chance of so large a difference in a judge that looks at no position.
    """

    n: int
    answers: tuple[float, ...]
    truths: tuple[float, ...]
    moved: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two judges gave the same answer, over the questions that both answered readably.

    `kappa` (Cohen) takes off what two judges would agree on by chance; None where that is all.
    """

    n: int
    share: float
    interval: Interval
    kappa: float | None


def position_bias(answers: Sequence[Answer], rng: np.random.Generator) -> PositionBias | None:
    """Test whether wrong answers crowd at some positions; None where there is no choice of one.

    Without a preference, a wrong answer and the truth it missed could as well stand at each
    other's positions: the p-value is over random swaps of the two (a sign-flip test, exact
    whatever the labels and however many candidates).
    """
    told = [one for one in answers if one.item.right and one.verdict.outcome is Outcome.LABEL]
    pairs = [(_position(one, one.verdict.label), _position(one, one.item.right)) for one in told]
    n_positions = max((len(one.presented) for one in told), default=0)
    if n_positions < 2:
        return None
    answer, truth = np.array(pairs).T
    at_answer = np.bincount(answer, minlength=n_positions)
    at_truth = np.bincount(truth, minlength=n_positions)
    return PositionBias(
        n=len(told),
        answers=tuple((at_answer / len(told)).tolist()),
        truths=tuple((at_truth / len(told)).tolist()),
        moved=float(np.abs(at_answer - at_truth).sum() / (2 * len(told))),
        p_value=_swap_test(np.eye(n_positions)[answer] - np.eye(n_positions)[truth], rng),
    )


def agreement(first: Sequence[Answer], second: Sequence[Answer]) -> Agreement | None:
    """Compare two judges; None where no question was answered readably by both."""
    said = {one.item: one.verdict.label for one in first if one.readable}
    pairs = [
        (said[one.item], one.verdict.label) for one in second if one.readable and one.item in said
    ]
    if not pairs:
        return None
    n, n_equal = len(pairs), sum(one == other for one, other in pairs)
    counts, others = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    by_chance = sum(counts[label] * others[label] for label in counts) / n**2
    return Agreement(
        n=n,
        share=n_equal / n,
        interval=wilson_interval(n_equal, n),
        kappa=(n_equal / n - by_chance) / (1 - by_chance) if by_chance < 1 else None,
    )


def _position(answer: Answer, label: str | None) -> int:
    return answer.presented.index(str(label))


def _swap_test(moves: NDArray[np.float64], rng: np.random.Generator) -> float:
    """P-value of the sum of `moves`, shape (n_answers, n_positions), under random signs."""
    moves = moves[moves.any(axis=1)]
    observed = float((moves.sum(axis=0) ** 2).sum())
    signs = rng.choice((-1.0, 1.0), size=(N_SWAPS, len(moves)))
    drawn = ((signs @ moves) ** 2).sum(axis=1)
    return float((1 + (drawn >= observed).sum()) / (1 + N_SWAPS))
