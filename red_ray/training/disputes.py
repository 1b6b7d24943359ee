"""Which labels a person should look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from red_ray.training.ensemble import Ensemble
from red_ray.training.job import Dispute
from red_ray.training.router_host import Contradiction


def disputed(
    contradicted: Sequence[Contradiction],
    gold: Mapping[int, int | None],
    ensemble: Ensemble,
    names: Sequence[str],
    texts: Sequence[str],
) -> tuple[Dispute, ...]:
    """The labels that the final model contradicts, those it is surest about first.

    A label that the user gave is listed only where the judge, asked about it as a planted
    question, contradicts it too.

    Args:
        contradicted: rows for which the model, not having seen them, names another label.
        gold: the judge's answers about seed rows; None for none of these.
        ensemble: rows and their labels.
        names: of the labels.
        texts: of all rows.
    """
    label_of = dict(zip(ensemble.rows.tolist(), ensemble.labels.tolist(), strict=True))
    found = []
    for one in sorted(contradicted, key=lambda one: (-one.confidence, one.row)):
        by_judge, label = one.row >= ensemble.n_seed, label_of[one.row]
        if not by_judge and gold.get(one.row, label) == label:
            continue
        said = gold.get(one.row)
        found.append(
            Dispute(
                text=texts[one.row],
                label=names[label],
                by_judge=by_judge,
                judge_says=None if said is None else names[said],
                model_says=names[one.label],
                confidence=one.confidence,
            )
        )
    return tuple(found)
