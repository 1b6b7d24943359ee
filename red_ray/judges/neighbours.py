"""A judge without a language model: the nearest labelled examples vote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from red_ray.judges.base import refuse_to_write
from red_ray.types import Outcome, Question, Reply

Votes = Callable[[str], Sequence[tuple[str, float]]]
"""Text -> (label, similarity) of its nearest labelled examples; similarity is a cosine."""


class NeighboursJudge:
    """Names the label with the largest summed similarity, none where it was not offered.

    Args:
        votes: the nearest labelled examples of a text. Called on the event loop: a look-up
            among stored embeddings, not an encoder.
    """

    name = "neighbours"

    def __init__(self, votes: Votes) -> None:
        self._votes = votes

    async def ask(
        self,
        question: Question,
        complaint: str = "",  # noqa: ARG002 (part of the protocol)
    ) -> Reply:
        """Count the votes; where nothing votes there is no answer, not a "no".

        Raises:
            JudgeError: it has no words of its own to answer with.
        """
        refuse_to_write(question, self.name)
        votes = self._votes(question.text)
        if not votes:
            return Reply(Outcome.UNREADABLE, reason="no labelled example is near the text")
        best = _elect(votes)
        offered = {candidate.label for candidate in question.candidates}
        return Reply(Outcome.LABEL, best) if best in offered else Reply(Outcome.NONE)

    async def close(self) -> None:
        """Nothing to release."""


def _elect(votes: Sequence[tuple[str, float]]) -> str | None:
    """The label with the largest sum, the first by name among equals; None if no sum is positive.

    A negative cosine is no vote against a label that other examples speak for.
    """
    sums: defaultdict[str, float] = defaultdict(float)
    for label, similarity in votes:
        sums[label] += max(similarity, 0.0)
    best = min(sums, key=lambda label: (-sums[label], label))
    return best if sums[best] > 0 else None
