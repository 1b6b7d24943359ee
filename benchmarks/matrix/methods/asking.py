"""Asks a language model for a label: the prompt, its examples, what is cut, and the writing.

Zero-shot, few-shot and LoRA share it, so that a model before and after its training is asked the
same, word for word, and its answers are read alike.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.matrix.config import LoraColumn, PromptColumn
from benchmarks.matrix.methods import pretrained
from benchmarks.matrix.methods.base import Answers
from benchmarks.matrix.methods.pretrained import Machine, batches
from benchmarks.matrix.methods.reading import read_answer
from benchmarks.matrix.tasks import Rows, Task, Text
from red_ray.errors import ConfigError

_ALLOWED = "Answer with one of these and with nothing else:"
_CUE = "Answer:"
_GAP = "\n\n"
_CUT = " … "
_IGNORED = -100  # the label that transformers' losses leave out


@dataclass(frozen=True, slots=True)
class Example:
    """A row of train that is shown with its answer."""

    text: Text
    word: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is told, asked and shown; the text asked about stands last, as it is.

    Attributes:
        instruction: of the task.
        words: that it may answer.
        columns: names of the parts of a text.
        examples: shown before every text, the same for all.
        cue: what stands behind the text; empty where a chat template says whose turn it is.
    """

    instruction: str
    words: tuple[str, ...]
    columns: tuple[str, ...]
    examples: tuple[Example, ...]
    cue: str

    def of(self, text: Text, n_examples: int) -> str:
        """The prompt of a text with the first so many examples."""
        allowed = "\n".join([_ALLOWED, *(f"- {word}" for word in self.words)])
        shown = [
            f"{self._named(one.text)}\n{_CUE} {one.word}" for one in self.examples[:n_examples]
        ]
        asked = self._named(text) + (f"\n{self.cue}" if self.cue else "")
        return _GAP.join([f"{self.instruction}\n{allowed}", *shown, asked])

    def _named(self, text: Text) -> str:
        return "\n".join(f"{name}: {part}" for name, part in zip(self.columns, text, strict=True))


def draw_examples(task: Task, n: int, seed: int) -> tuple[Example, ...]:
    """Rows of train: one of each label first, then round robin, labels and rows in drawn order."""
    rng = np.random.default_rng([seed, 11])
    train = task.train
    rows_of = {
        int(label): list(rng.permutation(np.flatnonzero(train.labels == label)))
        for label in rng.permutation(np.unique(train.labels))
    }
    found: list[Example] = []
    while len(found) < n and any(rows_of.values()):
        for label, rows in rows_of.items():
            if rows and len(found) < n:
                found.append(Example(train.texts[int(rows.pop())], task.words[label]))
    return tuple(found)


class Asker:
    """Asks one model about texts of one task.

    Attributes:
        model: that writes; LoRA puts the adapted one in its place.
        tokenizer: of it.
        prompt: of the task.
        machine: where the model is.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        task: Task,
        *,
        examples: tuple[Example, ...],
        column: PromptColumn | LoraColumn,
        machine: Machine,
    ) -> None:
        self.model, self.tokenizer, self.machine = model, tokenizer, machine
        self._is_chat = tokenizer.chat_template is not None
        cue = "" if self._is_chat else _CUE
        self.prompt = Prompt(task.instruction, task.words, task.columns, examples, cue)
        self._max_tokens = _longest(column.max_tokens, column.max_new_tokens, model)
        self._check_words(column.max_new_tokens)
        self._writing = _writing(model, tokenizer, column.max_new_tokens)
        self._fewer: set[Text] = set()
        self._cut: set[Text] = set()

    def answer(self, texts: Sequence[Text], batch_size: int) -> Answers:
        """What the model answers to texts, so many at a time."""
        raw = [""] * len(texts)
        for at in batches(texts, batch_size):
            written = self._written([self.asked(texts[one]) for one in at])
            for one, answer in zip(at, written, strict=True):
                raw[one] = answer
        labels = [read_answer(one, self.prompt.words) for one in raw]
        return Answers(np.array(labels, np.int64), tuple(raw))

    def asked(self, text: Text) -> str:
        """The prompt of a text as the model reads it.

        One that is too long loses its examples from the last one on, then the middle of the text.
        """
        n_examples = len(self.prompt.examples)
        for n_shown in range(n_examples, -1, -1):
            whole = self._wrapped(text, n_shown)
            if self._fits(whole):
                if n_shown < n_examples:
                    self._fewer.add(text)
                return whole
        self._cut.add(text)
        return self._wrapped(self._shortened(text), 0)

    def labelled(self, rows: Rows) -> list[Mapping[str, Any]]:
        """Rows for a training: tokens of the prompt, then of the label's word, which alone count.

        Each has `input_ids` and `labels`.
        """
        found: list[Mapping[str, Any]] = []
        for text, label in zip(rows.texts, rows.labels, strict=True):
            asked = self._tokens(self.asked(text))
            answer = self._answer_tokens(self.prompt.words[int(label)])
            labels = [_IGNORED] * len(asked) + answer
            found.append({"input_ids": asked + answer, "labels": labels})
        return found

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch of tensors, padded behind."""
        import torch

        longest = max(len(row["input_ids"]) for row in rows)

        def padded(values: Sequence[int], filler: int) -> list[int]:
            return [*values, *[filler] * (longest - len(values))]

        pad = self.tokenizer.pad_token_id
        ids = [padded(row["input_ids"], pad) for row in rows]
        seen = [padded([1] * len(row["input_ids"]), 0) for row in rows]
        labels = [padded(row["labels"], _IGNORED) for row in rows]
        return {
            "input_ids": torch.tensor(ids),
            "attention_mask": torch.tensor(seen),
            "labels": torch.tensor(labels),
        }

    def loss(self, rows: Sequence[Mapping[str, Any]], batch_size: int) -> float:
        """Mean loss of an answer's token over rows in tokens."""
        total, n_tokens = 0.0, 0
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            n_here = sum(value != _IGNORED for row in chosen for value in row["labels"])
            batch = self.collate(chosen)
            moved = {name: tensor.to(self.machine.device) for name, tensor in batch.items()}
            total += self.model(**moved).loss.item() * n_here
            n_tokens += n_here
        return total / n_tokens

    @property
    def notes(self) -> list[str]:
        """What a reader of its answers should know, of all texts that were asked about so far."""
        form = "the model's chat template" if self._is_chat else "a plain prompt, ended by a blank"
        notes = [f"asked in {form}{'' if self._is_chat else ' line'}; written greedily"]
        if self._fewer:
            notes.append(f"{len(self._fewer)} texts were too long for all examples: shown fewer")
        if self._cut:
            notes.append(f"{len(self._cut)} texts were too long and lost their middle")
        return notes

    def _written(self, asked: Sequence[str]) -> list[str]:
        import torch

        batch = self.tokenizer(
            list(asked),
            add_special_tokens=not self._is_chat,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            return_token_type_ids=False,
        ).to(self.machine.device)
        with torch.inference_mode():
            out = self.model.generate(**batch, generation_config=self._writing)
        new = out[:, batch["input_ids"].shape[1] :]
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [text if self._is_chat else text.strip().split(_GAP)[0] for text in texts]

    def _wrapped(self, text: Text, n_examples: int) -> str:
        told = self.prompt.of(text, n_examples)
        if not self._is_chat:
            return told
        return str(
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": told}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,  # read by templates of models that can think
            )
        )

    def _tokens(self, asked: str) -> list[int]:
        return list(self.tokenizer(asked, add_special_tokens=not self._is_chat)["input_ids"])

    def _answer_tokens(self, word: str) -> list[int]:
        said = word if self._is_chat else f" {word}"
        tokens = list(self.tokenizer(said, add_special_tokens=False)["input_ids"])
        end = self.tokenizer.eos_token_id
        return tokens if end is None else [*tokens, end]

    def _fits(self, asked: str) -> bool:
        return len(self._tokens(asked)) <= self._max_tokens

    def _shortened(self, text: Text) -> Text:
        """The text whose parts keep the most characters that fit, from both of their ends."""
        longest = max(map(len, text))
        n_kept = bisect_left(
            range(longest), True, key=lambda n: not self._fits(self._wrapped(_ends(text, n + 1), 0))
        )
        if n_kept == 0:
            raise ConfigError(
                f"max_tokens: {self._max_tokens!r} tokens do not hold the prompt without a text, "
                f"{len(self._tokens(self._wrapped(_ends(text, 0), 0)))}; raise it, or shorten "
                "`instruction` and `words`"
            )
        return _ends(text, n_kept)

    def _check_words(self, max_new_tokens: int) -> None:
        lengths = {word: len(self._answer_tokens(word)) - 1 for word in self.prompt.words}
        word, n = max(lengths.items(), key=lambda one: one[1])
        if n > max_new_tokens:
            raise ConfigError(
                f"max_new_tokens: {max_new_tokens!r} is too few to write {word!r}, which takes {n}"
            )


def open_asker(
    column: PromptColumn | LoraColumn, task: Task, examples: tuple[Example, ...] = ()
) -> Asker:
    """An asker with the column's model.

    Raises:
        ConfigError: there is no such model, or the limits of tokens cannot hold a prompt.
    """
    machine = pretrained.machine_of(column.num_gpus, column.dtype)
    tokenizer = pretrained.load_tokenizer(column.model)
    model = pretrained.load_decoder(column.model, machine)
    return Asker(model, tokenizer, task, examples=examples, column=column, machine=machine)


def _writing(model: Any, tokenizer: Any, max_new_tokens: int) -> Any:
    """How it writes; in place of the model's own settings, which sample."""
    from transformers import GenerationConfig

    own = model.generation_config
    writing = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        bos_token_id=own.bos_token_id,
        eos_token_id=list(_ends_of(own.eos_token_id, tokenizer.eos_token_id)) or None,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
    )
    model.generation_config = writing
    return writing


def _ends_of(*ids: int | list[int] | None) -> Iterator[int]:
    """Each token that ends an answer, once; a chat model has more than its tokenizer says."""
    flat = [one for given in ids for one in (given if isinstance(given, list) else [given])]
    yield from dict.fromkeys(one for one in flat if one is not None)


def _ends(text: Text, n: int) -> Text:
    """Each part with at most `n` of its characters, half of them from its end."""
    return tuple(
        part if len(part) <= n else part[: n - n // 2] + _CUT + part[len(part) - n // 2 :]
        for part in text
    )


def _longest(max_tokens: int, max_new_tokens: int, model: Any) -> int:
    """Tokens of a prompt: the column's limit, or what the model has room for."""
    positions = getattr(model.config, "max_position_embeddings", None)
    return max_tokens if positions is None else min(max_tokens, positions - max_new_tokens)
