"""A judge that knows the truth and is wrong at a stated rate, the same way every time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from red_ray.judges.base import question_key, refuse_to_write
from red_ray.types import Outcome, Question, Reply


class SimulatedJudge:
    """Gives the right option with probability `accuracy`, else one of the others, uniformly.

    The draw is a hash of seed and question key: neither order nor a restart changes it.

    Args:
        accuracy: probability of the right option, 0 to 1.
        seed: draws anew which questions go wrong.
        hidden: a text's true label, or None where no label is true.
    """

    def __init__(self, accuracy: float, *, seed: int, hidden: Callable[[str], str | None]) -> None:
        self._accuracy = accuracy
        self._seed = seed
        self._hidden = hidden

    @property
    def name(self) -> str:
        """Kind, accuracy and seed."""
        return f"simulated:{self._accuracy!r}?seed={self._seed}"

    async def ask(
        self,
        question: Question,
        complaint: str = "",  # noqa: ARG002 (part of the protocol)
    ) -> Reply:
        """Draw the answer.

        Raises:
            JudgeError: it has no words of its own to answer with.
        """
        refuse_to_write(question, self.name)
        labels = sorted({candidate.label for candidate in question.candidates})
        truth = self._hidden(question.text)
        right = truth if truth in labels else None
        wrong = [option for option in (*labels, None) if option != right]
        chance, which = self._draw(question)
        label = right if chance < self._accuracy or not wrong else wrong[which % len(wrong)]
        return Reply(Outcome.NONE) if label is None else Reply(Outcome.LABEL, label)

    async def close(self) -> None:
        """Nothing to release."""

    def _draw(self, question: Question) -> tuple[float, int]:
        """A number in [0, 1) and an independent 64-bit integer."""
        seeded = f"{self._seed}:{question_key(question, self.name)}"
        digest = hashlib.sha256(seeded.encode("ascii")).digest()
        # 53 bits: as many as a float holds, so that the quotient is below 1.
        chance = (int.from_bytes(digest[:8], "big") >> 11) / 2**53
        return chance, int.from_bytes(digest[8:16], "big")
