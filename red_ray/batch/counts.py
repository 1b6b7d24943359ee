"""How many rows of a table were decided how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from red_ray.types import Decision


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """Rows by what was decided; `errors` are rows that have no usable text.

    `escalated`: that would ask a judge, and did not. `abstained`: on which the judge gave no
    result. Of the rest, `by_judge` and `by_person` were answered by one.
    """

    rows: int = 0
    accepted: int = 0
    none: int = 0
    errors: int = 0
    escalated: int = 0
    abstained: int = 0
    by_judge: int = 0
    by_person: int = 0

    @classmethod
    def of(cls, decisions: Sequence[Decision | None]) -> BatchCounts:
        """Count decisions; None stands for a row without a usable text."""
        kinds = [None if one is None else one.decision for one in decisions]
        answered = [one.source for one in decisions if one and one.decision in ("accept", "none")]
        return cls(
            rows=len(kinds),
            accepted=kinds.count("accept"),
            none=kinds.count("none"),
            errors=kinds.count(None),
            escalated=kinds.count("escalate"),
            abstained=kinds.count("abstain"),
            by_judge=answered.count("judge"),
            by_person=answered.count("human"),
        )

    def __add__(self, other: BatchCounts) -> BatchCounts:
        return BatchCounts(*map(sum, zip(astuple(self), astuple(other), strict=True)))


def summed(counts: Iterable[BatchCounts]) -> BatchCounts:
    """All of them together."""
    return sum(counts, BatchCounts())
