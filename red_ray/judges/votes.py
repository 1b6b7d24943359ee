"""Votes for the `neighbours` judge, by n-grams: another view than the experts' embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from red_ray.core.lexical import LexicalSpace
from red_ray.judges.neighbours import Votes

N_VOTES = 10
"""Nearest examples that vote: a label with ten examples can win outright."""


def lexical_votes(texts: Sequence[str], labels: Sequence[str]) -> Votes:
    """The vote of the labelled examples that share most n-grams with a text."""
    space = LexicalSpace.fit(texts)
    by_feature = space.transform(texts).T.tocsr()

    def votes(text: str) -> list[tuple[str, float]]:
        similarity = (space.transform([text]) @ by_feature).toarray()[0]
        nearest = np.argsort(-similarity, kind="stable")[:N_VOTES]
        return [(labels[row], float(similarity[row])) for row in nearest]

    return votes
