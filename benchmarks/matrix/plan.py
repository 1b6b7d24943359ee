"""What a matrix would take, before it runs: cells, sizes of models, time and price. An estimate.

The rule, for each cell: a training takes 6 FLOPs for each parameter and token (LoRA 4, as the
frozen weights need no gradients), a prediction 2; a step of a training takes at least `step_s`;
what a language model writes takes a pass over its weights for each token, at the memory's speed; a
model is read from a disk once. Padding, the fit of classical models and starts of processes are
left out. `CPU` and `CARD` say how fast what is.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from benchmarks.matrix.config import (
    Column,
    FineTuneColumn,
    JudgeColumn,
    LoraColumn,
    MatrixConfig,
    PromptColumn,
    RedColumn,
    SetFitColumn,
    TaskConfig,
)
from benchmarks.matrix.measure import N_WARM
from red_ray.encoding.files import find_here
from red_ray.errors import EncoderError


class Rates(NamedTuple):
    """How fast a machine is, for whole models with what surrounds them.

    Attributes:
        flops: a second, sustained.
        bytes_per_s: of weights, where a language model writes word by word.
        step_s: at least, for each step of a training and each token that is written: the
            libraries' own time.
        weight_bytes: of a language model's parameter.
    """

    flops: float
    bytes_per_s: float
    step_s: float
    weight_bytes: int


# Measured: MiniLM on one core of a Xeon in float32, batches of 16 x 32 and 16 x 96, by the CPU's
# clock: 145 GFLOP/s of training and 155 of prediction if all 22.7 M parameters count, half of which
# are a table of words that computes nothing; of the 10.6 M that do 68. Two cores are taken as two
# of one. A product of a vector with a matrix read 20 GB/s.
CPU = Rates(flops=1.35e11, bytes_per_s=20e9, step_s=0.01, weight_bytes=4)
# Assumed, not measured: a third of the bfloat16 that an A100 promises, and half of its memory's
# speed; 30 ms for a step, which small models on a card hardly fall below with these libraries.
CARD = Rates(flops=1.0e14, bytes_per_s=1.0e12, step_s=0.03, weight_bytes=2)

CHARACTERS_PER_TOKEN = 4.5  # measured: RTE with MiniLM's tokenizer, 308 characters in 68 tokens
WRITTEN_TOKENS = 4  # of an answer, its end among them; a word of a label is one to three
DISK_BYTES_PER_S = 1e9
_TOLD = 60  # tokens of a prompt that are neither instruction nor text: template, names, words


# Parameters of models without their task's head, counted on the models that transformers makes
# of the `config.json` that each repository publishes.
KNOWN: Mapping[str, int] = {
    "all-MiniLM-L6-v2": 22_713_216,
    "bert-base-uncased": 109_482_240,
    "microsoft/deberta-base": 138_601_728,
    "microsoft/deberta-v3-base": 183_831_552,
    "Qwen/Qwen2-0.5B": 494_032_768,
    "Qwen/Qwen2-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2-1.5B": 1_543_714_304,
    "Qwen/Qwen2-1.5B-Instruct": 1_543_714_304,
    "google/gemma-2b": 2_506_172_416,
    "google/gemma-2b-it": 2_506_172_416,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
}

# Rows of a hub's splits, as its pages state them, and about how many characters a row has; RTE's
# are measured.
HUB_ROWS: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "nyu-mll/glue:sst2": {"train": (67_349, 53), "validation": (872, 105)},
    "nyu-mll/glue:rte": {"train": (2_490, 308), "validation": (277, 308)},
    "nyu-mll/glue:mnli": {
        "train": (392_702, 170),
        "validation_matched": (9_815, 170),
        "validation_mismatched": (9_832, 170),
    },
}


@dataclass(frozen=True, slots=True)
class TaskSize:
    """Rows of a task as a cell sees them, and tokens of one row.

    Attributes:
        n_train, n_select, n_report: rows.
        n_labels: of them.
        tokens: of a text, mean of the rows to learn from.
    """

    n_train: int
    n_select: int
    n_report: int
    n_labels: int
    tokens: float


@dataclass(frozen=True, slots=True)
class Planned:
    """One column on one task, all its seeds.

    Attributes:
        task, column, method, model: what it is; `model` is empty where there is none.
        n_cells: its seeds.
        n_parameters: of the model; None where they are not known.
        gb: of its weights.
        cpu_s: of one cell on two cores; None where it is not estimated.
        gpu_s: of one cell on one card; None where it is not estimated, or no card would help.
        calls: of a judge, at most, in one cell.
        on_gpu: whether the column asks for a card.
        why: it is not estimated; else empty.
    """

    task: str
    column: str
    method: str
    model: str
    n_cells: int
    n_parameters: int | None = None
    gb: float | None = None
    cpu_s: float | None = None
    gpu_s: float | None = None
    calls: int = 0
    on_gpu: bool = False
    why: str = ""

    @property
    def own_s(self) -> float | None:
        """Of one cell on what its column asks for."""
        return self.gpu_s if self.on_gpu else self.cpu_s


@dataclass(frozen=True, slots=True)
class Plan:
    """An estimate of a whole matrix.

    Attributes:
        name: of the matrix.
        pairs: of column and task, in the order of the cells.
        usd_per_hour: of the machine, where it is given.
    """

    name: str
    pairs: tuple[Planned, ...]
    usd_per_hour: float | None

    @property
    def n_cells(self) -> int:
        """Of all pairs and seeds."""
        return sum(pair.n_cells for pair in self.pairs)

    @property
    def n_calls(self) -> int:
        """Of judges, at most."""
        return sum(pair.calls * pair.n_cells for pair in self.pairs)

    @property
    def cpu_s(self) -> float:
        """Of all cells that are estimated, one after the other on two cores."""
        return sum((pair.cpu_s or 0) * pair.n_cells for pair in self.pairs)

    @property
    def gpu_s(self) -> float:
        """The same where one card computes what a card can."""
        return sum((pair.gpu_s or pair.cpu_s or 0) * pair.n_cells for pair in self.pairs)

    @property
    def not_estimated(self) -> tuple[Planned, ...]:
        """Pairs that the totals leave out."""
        return tuple(pair for pair in self.pairs if pair.why)

    def usd(self, pair: Planned) -> float | None:
        """Of a pair's cells on what its column asks for; None without a price or an estimate."""
        if self.usd_per_hour is None or pair.own_s is None:
            return None
        return pair.own_s * pair.n_cells / 3600 * self.usd_per_hour

    @property
    def total_usd(self) -> float | None:
        """Of all pairs that are estimated; None where the machine has no price."""
        if self.usd_per_hour is None:
            return None
        return sum(self.usd(pair) or 0 for pair in self.pairs)


class _Work(NamedTuple):
    """What one cell computes."""

    flops: float
    updates: float = 0  # steps of a training
    written: float = 0  # passes that write a token
    is_decoder: bool = False


def plan(config: MatrixConfig, cpu: Rates = CPU, card: Rates = CARD) -> Plan:
    """Estimate a matrix; reads local tables and the headers of local models, runs nothing.

    Raises:
        DataError: a local task's data is not there.
    """
    sizes = {name: _size(name, task, config.seeds[0]) for name, task in config.tasks.items()}
    n_cells: dict[tuple[str, str], int] = {}
    for cell in config.cells:
        n_cells[cell.task, cell.column] = n_cells.get((cell.task, cell.column), 0) + 1
    pairs = [
        _planned(config, task, config.column(column), sizes[task], n, (cpu, card))
        for (task, column), n in n_cells.items()
    ]
    return Plan(config.name, tuple(pairs), config.usd_per_hour)


def size_of_model(name: str) -> int | None:
    """Parameters of a model that is here, by its files' headers, or that is known; else None."""
    try:
        folder = find_here(name)
    except EncoderError:
        folder = None
    found = _in_files(folder) if folder is not None else 0
    return found or KNOWN.get(name) or KNOWN.get(name.removeprefix("sentence-transformers/"))


def render(plan: Plan) -> Table:
    """The plan as a table; its caption says what it rests on."""
    table = Table(title=_title(plan), caption=_caption(plan), caption_justify="left")
    for head in ("task", "column", "method", "model"):
        table.add_column(head)
    for head in ("parameters", "GB", "cells", "a cell, two cores", "a cell, one card", "USD"):
        table.add_column(head, justify="right")
    for pair in plan.pairs:
        table.add_row(*_row(plan, pair))
    return table


def _row(plan: Plan, pair: Planned) -> list[str]:
    usd = plan.usd(pair)
    calls = f"{pair.calls * pair.n_cells:,} calls" if pair.calls else ""
    return [
        pair.task,
        pair.column,
        pair.method,
        pair.model,
        "–" if not pair.model else _millions(pair.n_parameters),
        "–" if pair.gb is None else f"{pair.gb:.2f}",
        str(pair.n_cells),
        calls or pair.why or _time(pair.cpu_s),
        "–" if pair.gpu_s is None else _time(pair.gpu_s),
        "–" if usd is None else f"{usd:.2f}",
    ]


def _title(plan: Plan) -> str:
    return f"{plan.name}: {len(plan.pairs)} pairs of column and task, {plan.n_cells} cells"


def _caption(plan: Plan) -> str:
    lines = [
        f"An estimate: all cells one after the other take {_time(plan.cpu_s)} on two cores, "
        f"{_time(plan.gpu_s)} with one card.",
        f"6 FLOPs a parameter and token of a training (LoRA 4), 2 of a prediction; "
        f"{CPU.flops:.2g} FLOP/s on two cores (measured), {CARD.flops:.2g} on a card (assumed). "
        "Classical fits, padding, and the start of Ray and of each cell's process (some 10 s) are "
        "not in it.",
    ]
    if plan.total_usd is not None:
        lines.append(f"Price of the machine: {plan.total_usd:,.2f} USD.")
    if plan.n_calls:
        lines.append(f"Judges are asked at most {plan.n_calls:,} times.")
    if plan.not_estimated:
        names = sorted({f"{one.column} on {one.task}" for one in plan.not_estimated})
        lines.append(f"Not estimated, and in no sum: {', '.join(names)}.")
    return "\n".join(lines)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "not estimated"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _millions(n: int | None) -> str:
    return "unknown" if n is None else f"{n / 1e6:,.1f} M"


def _planned(
    config: MatrixConfig,
    task: str,
    column: Column,
    size: TaskSize | None,
    n_cells: int,
    rates: tuple[Rates, Rates],
) -> Planned:
    model = _model_of(column)
    n = size_of_model(model) if model else None
    common = {
        "task": task,
        "column": column.name,
        "method": column.method,
        "model": model,
        "n_cells": n_cells,
        "n_parameters": n,
        "on_gpu": column.num_gpus > 0,
    }
    why = _why_not(column, size, n if model else 0)
    if why or size is None:
        return Planned(**common, why=why)
    if isinstance(column, JudgeColumn):
        # Those of train that are timed and warmed with, and the report rows.
        n_known = min(N_WARM + config.n_single + config.batch_size, size.n_train + size.n_select)
        return Planned(**common, calls=n_known + size.n_report)
    cpu, card = rates
    work = _work(column, size, n or 0, _prompt_tokens(config.tasks[task], column, size), config)
    on = card if column.num_gpus > 0 else cpu
    return Planned(
        **common,
        gb=(n or 0) * (on.weight_bytes if work.is_decoder else 4) / 1e9 if model else None,
        cpu_s=_seconds(work, n or 0, cpu),
        gpu_s=_seconds(work, n or 0, card) if model else None,
    )


def _why_not(column: Column, size: TaskSize | None, n_parameters: int | None) -> str:
    if size is None:
        return "rows unknown"
    if isinstance(column, RedColumn) and column.mode == "accuracy":
        return "not estimated"  # its fine-tuning stops by itself
    if n_parameters is None and not isinstance(column, JudgeColumn):
        return "size unknown"
    return ""


def _model_of(column: Column) -> str:
    if isinstance(column, RedColumn):
        return "all-MiniLM-L6-v2"
    return str(getattr(column, "model", ""))


def _work(
    column: Column, size: TaskSize, n: int, prompt_tokens: float, config: MatrixConfig
) -> _Work:
    """FLOPs and written tokens of a cell: learning, choosing, and predicting the report rows."""
    n_single = min(config.n_single, size.n_train)
    n_predicted = size.n_report + n_single
    passes = size.n_report / config.batch_size + n_single
    if isinstance(column, PromptColumn):
        flops = 2 * n * (prompt_tokens + WRITTEN_TOKENS) * n_predicted
        return _Work(flops, written=passes * WRITTEN_TOKENS, is_decoder=True)
    if isinstance(column, LoraColumn):
        trained = 4 * _learned(column, size) + 2 * 2 * size.n_select  # its loss and its writing
        flops = n * prompt_tokens * (trained * column.epochs + 2 * n_predicted)
        looks = (column.epochs + 1) * size.n_select / column.batch_size
        written = (passes + looks) * WRITTEN_TOKENS
        return _Work(flops, _updates(column, size), written, is_decoder=True)
    if isinstance(column, FineTuneColumn):
        tokens = min(size.tokens, column.max_tokens)
        trained = (6 * _learned(column, size) + 2 * size.n_select) * column.epochs
        return _Work(n * tokens * (trained + 2 * n_predicted), _updates(column, size))
    encoded = 2 * n * size.tokens * (size.n_train + size.n_select + n_predicted)
    return _Work(encoded + 6 * n * size.tokens * _paired_texts(column, size))


def _updates(column: FineTuneColumn | LoraColumn, size: TaskSize) -> int:
    return math.ceil(_learned(column, size) / column.batch_size) * column.epochs


def _learned(column: FineTuneColumn | LoraColumn, size: TaskSize) -> int:
    """Rows of an epoch, of both trainings where it learns anew from all."""
    again = size.n_train + size.n_select if column.refit else 0
    return size.n_train + again


def _paired_texts(column: Column, size: TaskSize) -> float:
    """Texts that SetFit's pairs pass through its encoder; by default as many unlike as like pairs,
    which is every pair of unlike rows twice over."""
    if not isinstance(column, SetFitColumn):
        return 0
    n_rows = size.n_train + size.n_select
    n_pairs = n_rows**2 * (1 - 1 / size.n_labels) * column.epochs
    if column.max_steps > 0:
        n_pairs = min(n_pairs, column.max_steps * column.batch_size)
    return 2 * n_pairs


def _seconds(work: _Work, n_parameters: int, rates: Rates) -> float:
    weights = n_parameters * (rates.weight_bytes if work.is_decoder else 4)
    writing = work.written * max(weights / rates.bytes_per_s, rates.step_s)
    computing = max(work.flops / rates.flops, work.updates * rates.step_s)
    return computing + writing + weights / DISK_BYTES_PER_S


def _prompt_tokens(task: TaskConfig, column: Column, size: TaskSize) -> float:
    """Tokens of what a language model reads for one text."""
    told = _TOLD + len(task.instruction) / CHARACTERS_PER_TOKEN
    n_texts = 1 + (column.shots if column.method == "few_shot" else 0)
    limit = getattr(column, "max_tokens", math.inf)
    return float(min(told + n_texts * size.tokens, limit))


def _size(name: str, task: TaskConfig, seed: int) -> TaskSize | None:
    """Counted where the task is local, stated where its hub's data set is known, else None."""
    if task.hub is None:
        return _counted(name, task, seed)
    splits = HUB_ROWS.get(task.hub, {})
    if task.train not in splits or task.report not in splits:
        return None
    (n_rows, characters), (n_report, _) = splits[task.train], splits[task.report]
    n_labels = len(task.labels)
    if task.per_label is not None:
        n_rows = min(n_rows, task.per_label * n_labels)
    n_rows = min(n_rows, task.n_train or n_rows)
    n_select = round(n_rows * task.select_fraction)
    n_shown = min(n_report, task.n_report or n_report)
    tokens = characters / CHARACTERS_PER_TOKEN
    return TaskSize(n_rows - n_select, n_select, n_shown, n_labels, tokens)


def _counted(name: str, task: TaskConfig, seed: int) -> TaskSize:
    from benchmarks.matrix.tasks import load_task

    loaded = load_task(name, task, seed)
    rows = loaded.task.train.texts
    characters = sum(len(part) for text in rows for part in text) / len(rows)
    return TaskSize(
        n_train=len(loaded.task.train),
        n_select=len(loaded.task.select),
        n_report=len(loaded.report),
        n_labels=len(loaded.task.labels),
        tokens=characters / CHARACTERS_PER_TOKEN,
    )


def _in_files(folder: Path) -> int:
    """Parameters in the safetensors files of a folder; 0 where it has none."""
    return sum(_in_header(file) for file in folder.glob("*.safetensors"))


def _in_header(file: Path) -> int:
    """Source: https://huggingface.co/docs/safetensors, "Format"."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
