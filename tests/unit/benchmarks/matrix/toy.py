"""A task of a few words that tiny models learn, and what they write is made of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np

from benchmarks.matrix.tasks import Rows, Task, Text

THINGS = ("film", "plot", "song", "cast", "story", "scene")
WORDS = {"negative": ("bad", "awful"), "positive": ("good", "lovely")}
LABELS = tuple(WORDS)
INSTRUCTION = "Is the text negative or positive?"


def toy_rows(n: int, *, columns: int = 1, start: int = 0) -> Rows:
    """Rows of both labels in turn, of 144 different ones those from `start` on."""
    found = [_text(at, columns) for at in range(start, start + n)]
    return Rows(tuple(found), np.array([at % 2 for at in range(start, start + n)], np.int64))


def toy_task(
    n_train: int = 48, n_select: int = 12, *, columns: int = 1, select: Rows | None = None
) -> Task:
    """A task of two labels, of single texts or of pairs."""
    return Task(
        name="toy",
        labels=LABELS,
        words=LABELS,
        instruction=INSTRUCTION,
        columns=("text",) if columns == 1 else ("premise", "hypothesis"),
        train=toy_rows(n_train, columns=columns),
        select=select or toy_rows(n_select, columns=columns, start=70),
    )


def corpus(task: Task) -> list[str]:
    """What a tokenizer is made from: the texts, and what a prompt says."""
    told = [
        INSTRUCTION,
        "Answer with one of these and with nothing else:\n- negative\n- positive",
        "Answer: negative",
        "Answer: positive",
    ]
    texts: Sequence[Text] = task.everything.texts
    named = [
        f"{name}: {part}" for text in texts for name, part in zip(task.columns, text, strict=True)
    ]
    return [*named, *islice(cycle(told), 40)]


def _text(at: int, columns: int) -> Text:
    word = WORDS[LABELS[at % 2]][at // 2 % 2]
    thing, other = THINGS[at // 4 % 6], THINGS[at // 24 % 6]
    whole = f"the {thing} is {word}", f"as was the {other}"
    return (" ".join(whole),) if columns == 1 else whole
