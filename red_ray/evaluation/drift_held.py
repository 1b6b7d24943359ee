"""What models that had not seen a model's own examples said of them, from what the run keeps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from red_ray.core.router import says_none
from red_ray.evaluation.drift_rows import confidence_of
from red_ray.model import Assessment, RedModel, joined
from red_ray.training.crossfit import Crossfit
from red_ray.training.router_host import RouterHost, Scores

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CHUNK_ROWS = 2_048
"""Rows that the router weighs at a time."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Answers about a model's examples by models that had not seen them, shape (n_examples,).

    Attributes:
        best: position of the most probable label, -1 where that cannot be said.
        none: whether the answer is *none*; True where that cannot be said.
        novelty: probability that no label fits, infinite where that cannot be said.
        confidence: in the answer, not a number where that cannot be said.
        risk: probability that the answer is wrong, infinite where that cannot be said.
    """

    best: Ints
    none: Bools
    novelty: Doubles
    confidence: Doubles
    risk: Doubles


def held_out(model: RedModel, crossfit: Crossfit | None) -> HeldOut:
    """What is known of the examples of a model.

    The scores of its gate and experts are kept beside the bundle; the router and what it compares
    a text with are put together as at the end of the training, without the text's fold. Without
    the scores there are the user's rows, of which the bundle says how novel and how doubtful they
    were, and whether they were right.

    Args:
        model: trained.
        crossfit: what its run keeps of its cross-fitting, or None.
    """
    n = len(model.example_labels)
    found = HeldOut(
        best=np.full(n, -1),
        none=np.ones(n, dtype=bool),
        novelty=np.full(n, np.inf),
        confidence=np.full(n, np.nan),
        risk=np.full(n, np.inf),
    )
    if is_whole(model):
        _put_calibration(found, model)
    if crossfit is not None:
        _put_crossfitted(found, model, crossfit)
    return found


def is_whole(model: RedModel) -> bool:
    """Whether every one of the user's rows was cross-fitted, so that which is which is known.

    A row of a label that has no other is not, nor are those beyond a sample of very many.
    """
    return model.labelled_by == "user" and len(model.calibration.none) == model.n_seed


def _put_crossfitted(found: HeldOut, model: RedModel, crossfit: Crossfit) -> None:
    at = np.flatnonzero(crossfit.folds >= 0)
    host = RouterHost(model.config, len(model.labels))
    host.load(model.example_vectors, model.example_texts, model.subsets, model.space)
    rows, scores = np.arange(len(crossfit.folds)), Scores(crossfit.gate, crossfit.experts)
    evidence = host.crossfitted_evidence(rows, model.example_labels, crossfit.folds, scores)[at]
    seen = _assessed(model, evidence)
    says = says_none(seen.distribution, model.thresholds.none)
    found.best[at] = seen.label_proba.argmax(axis=1)
    found.none[at] = says
    found.novelty[at] = seen.none
    found.confidence[at] = confidence_of(seen.label_proba, seen.none, says)
    # The weights of the risk were fitted on the user's rows: theirs stay as they were held back.
    new = at[np.isinf(found.risk[at])]
    found.risk[new] = model.answer_risk(seen)[np.isin(at, new)]


def _assessed(model: RedModel, evidence: Floats) -> Assessment:
    starts = range(0, max(1, len(evidence)), CHUNK_ROWS)
    return joined([model.assess_evidence(evidence[at : at + CHUNK_ROWS]) for at in starts])


def _put_calibration(found: HeldOut, model: RedModel) -> None:
    """Of a row that was not answered rightly, which other label it was is not kept."""
    seen, mine = model.calibration, slice(0, model.n_seed)
    risk = seen.risk(model.thresholds.none)
    found.best[mine] = np.where(seen.right, model.example_labels[mine], -1)
    found.none[mine] = seen.none >= model.thresholds.none
    found.novelty[mine] = seen.none
    found.confidence[mine] = 1 - risk
    found.risk[mine] = risk
