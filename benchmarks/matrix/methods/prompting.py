"""A language model that is asked, untrained: without examples, or with some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.matrix.config import PromptColumn
from benchmarks.matrix.methods import pretrained
from benchmarks.matrix.methods.asking import Asker, Example, draw_examples, open_asker
from benchmarks.matrix.methods.base import Answers
from benchmarks.matrix.methods.reading import read_answer
from benchmarks.matrix.tasks import Task, Text

__all__ = ["Prompted", "Prompting", "read_answer"]

PROMPT = "prompt.txt"


class Prompting:
    """Asks a language model of a folder or a hub, as `zero_shot` or `few_shot`."""

    def __init__(self, column: PromptColumn) -> None:
        self._column = column

    def fit(self, task: Task, seed: int) -> Prompted:
        """Load the model; of `few_shot` draw the examples from `task.train`.

        Raises:
            ConfigError: there is no such model, or the limits of tokens cannot hold a prompt.
        """
        column = self._column
        n_shots = column.shots if column.method == "few_shot" else 0
        examples = draw_examples(task, n_shots, seed)
        return Prompted(open_asker(column, task, examples), _told(n_shots, examples, seed))


class Prompted:
    """A model with its prompt; see `base.Fitted`. Nothing of it was trained."""

    n_trained = 0
    history: Sequence[Mapping[str, float]] = ()
    usd: float | None = None

    def __init__(self, asker: Asker, told: Sequence[str]) -> None:
        self._asker, self._told = asker, told
        self.n_parameters = pretrained.n_parameters(asker.model)
        self.device = asker.machine.device

    @property
    def notes(self) -> list[str]:
        """What a reader should know; of cut texts those that were predicted so far."""
        return [*self._told, *self._asker.notes]

    def predict(self, texts: Sequence[Text], batch_size: int) -> Answers:
        """What the model answers; `UNREADABLE` where that names none or several labels."""
        return self._asker.answer(texts, batch_size)

    def save(self, folder: Path) -> None:
        """Write the prompt, its examples in it; there is no other thing that was made."""
        prompt = self._asker.prompt
        names = tuple(f"<{name}>" for name in prompt.columns)
        (folder / PROMPT).write_text(prompt.of(names, len(prompt.examples)), encoding="utf-8")

    def close(self) -> None:
        """Give back the model's memory."""
        self._asker.model = None
        pretrained.free_memory()


def _told(n_shots: int, examples: Sequence[Example], seed: int) -> list[str]:
    if not n_shots:
        return ["no example is shown, so that its seeds differ in nothing"]
    shown = Counter(one.word for one in examples)
    labels = ", ".join(f"{n} of {word!r}" for word, n in sorted(shown.items()))
    return [
        f"{len(examples)} examples of train, drawn with seed {seed}, before each text: {labels}"
    ]
