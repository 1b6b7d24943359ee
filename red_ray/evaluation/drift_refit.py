"""Which recent texts teach the experts that drift has hit, and nobody else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from red_ray.core.text import text_key
from red_ray.evaluation.drift_report import DriftReport
from red_ray.evaluation.drift_rows import DriftRows
from red_ray.labels.checks import NONE_WORDS
from red_ray.model import RedModel, expert_name

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Lessons:
    """Labelled recent texts for the experts of a report.

    Attributes:
        texts: those of labels that these experts hold.
        labels: their labels, by name.
        n_elsewhere: texts whose label another expert holds: they teach nobody.
        n_unknown: texts whose label the model does not have.
        n_none: texts that fit no label.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    n_elsewhere: int
    n_unknown: int
    n_none: int


def expert_positions(model: RedModel, report: DriftReport) -> tuple[int, ...]:
    """Of the experts that a report says to refit, ascending."""
    named = {expert.expert for expert in report.experts}
    return tuple(p for p in range(len(model.subsets)) if expert_name(p) in named)


def lessons(
    model: RedModel,
    positions: Sequence[int],
    texts: Sequence[str],
    labels: Mapping[str, str | None],
) -> Lessons:
    """The texts that teach some experts.

    Args:
        model: whose experts they are.
        positions: of the experts.
        texts: recent ones.
        labels: by `text_key`; None, or a word for it that is no label, where no label fits. A text
            without one is left out.
    """
    held = {model.labels[label] for position in positions for label in model.subsets[position]}
    known = frozenset(model.labels)
    found = [(text, labels[key]) for text in texts if (key := text_key(text)) in labels]
    mine = [(text, label) for text, label in found if label in held]
    strange = [label for _, label in found if label not in known]
    n_none = sum(label is None or label.casefold() in NONE_WORDS for label in strange)
    return Lessons(
        tuple(text for text, _ in mine),
        tuple(str(label) for _, label in mine),
        sum(label in known - held for _, label in found),
        len(strange) - n_none,
        n_none,
    )


def most_doubtful(
    model: RedModel,
    positions: Sequence[int],
    recent: DriftRows,
    apart: frozenset[str],
    n: int,
) -> Ints:
    """Positions of the texts to ask a judge about, the most doubtful first.

    Args:
        model: whose experts they are.
        positions: of the experts to which the texts are nearest.
        recent: what the model says of the texts.
        apart: keys of texts that the run is measured by, and may not learn from.
        n: how many at most.
    """
    held = [label for position in positions for label in model.subsets[position]]
    order = np.argsort(-recent.risk, kind="stable")
    chosen = order[np.isin(recent.best[order], held)]
    kept = [row for row in chosen if text_key(recent.texts[row]) not in apart]
    return np.array(kept[:n], dtype=np.int64)
