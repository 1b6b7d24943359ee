"""What a judge is, and what makes two questions the same question."""

from __future__ import annotations

import hashlib
from typing import Protocol, runtime_checkable

from red_ray.errors import JudgeError
from red_ray.judges.prompts import NONE_OPTION, PROMPT_VERSION
from red_ray.types import WRITING, Question, Reply

__all__ = ["NONE_OPTION", "Judge", "question_key", "refuse_to_write"]


@runtime_checkable
class Judge(Protocol):
    """Answers which candidate fits a text, or none."""

    @property
    def name(self) -> str:
        """Its identity: all that may change an answer but the question (kind, model, address)."""

    async def ask(self, question: Question, complaint: str = "") -> Reply:
        """Ask once, without retries; an answer that cannot be read is a reply of its own.

        Args:
            question: what is asked.
            complaint: the `reason` of the last reply to it where that could not be read; a
                language model is told it.

        Raises:
            SchemaRefused: the server does not take the form of the request; the judge sends
                another from now on: ask again, at once.
            JudgeTimeout: no answer in time.
            JudgeUnavailable: not reached or overloaded; another try may succeed.
            JudgeRefused: no other question will be answered either.
            JudgeError: this question cannot be answered, another one may be.
        """

    async def close(self) -> None:
        """Release connections; may be called twice."""


def question_key(question: Question, judge_name: str) -> str:
    """SHA-256, in hex, of all that makes a question the same: the key of the ledger.

    Text, the set of candidate labels, prompt version, mode and judge count; the order of the
    candidates, their descriptions and their examples do not.
    """
    labels = sorted(candidate.label for candidate in question.candidates)
    digest = hashlib.sha256()
    for part in (question.text, PROMPT_VERSION, question.mode, judge_name, *labels):
        # The length in front keeps ("ab", "c") apart from ("a", "bc").
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def refuse_to_write(question: Question, judge_name: str) -> None:
    """Stop a question that takes a language model.

    Raises:
        JudgeError: its mode is one of `WRITING`.
    """
    if question.mode in WRITING:
        what = "describe labels" if question.mode == "describe" else "write paraphrases"
        raise JudgeError(f"judge {judge_name!r} cannot {what}; use a language model")
