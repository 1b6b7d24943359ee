"""Verdicts out of a ledger and into another, and to people and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from red_ray.judges.ledger.entries import HumanVerdict, Record
from red_ray.judges.ledger.schema import RECORD_COLUMNS, stored_text_key
from red_ray.judges.ledger.store import Ledger
from red_ray.judges.prompts import NONE_OPTION
from red_ray.types import HUMAN, WRITING, Outcome

PERSON_COLUMNS = ("text", "candidates", "judge", "verdict", "answer")
BETWEEN = " | "
"""Between the candidates in a cell."""

N_SHOWN = 3

_BATCH = 1000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""

_MODES = ("choose", "verify", *WRITING)
_MAX_INTEGER = 2**63 - 1
_RECORD = TypeAdapter(Record)
_T = TypeVar("_T")


class Only(StrEnum):
    """Which verdicts a person is shown."""

    ALL = "all"
    DISPUTED = "disputed"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class RecordCounts:
    """What came of the lines of another ledger; `known`: nothing new in them."""

    new: int = 0
    known: int = 0
    humans: int = 0
    bad: int = 0


@dataclass(frozen=True, slots=True)
class AnswerCounts:
    """What came of the rows that people filled in; a few of the `unknown_labels` are named."""

    taken: int = 0
    known: int = 0
    unanswered: int = 0
    unknown: int = 0
    bad: int = 0
    unknown_labels: tuple[str, ...] = ()


def exported(ledger: Ledger) -> Iterator[dict[str, Any]]:
    """Every verdict, whole; then those of people, whose judge is `HUMAN`.

    Raises:
        StorageError: the ledger cannot be read.
    """
    people = (_human_record(human) for human in ledger.humans())
    for record in itertools.chain(ledger.records(), people):
        row = {name: getattr(record, name) for name in RECORD_COLUMNS}
        yield row | {
            "candidates": list(record.candidates),
            "outcome": record.outcome.value,
            "created_at": record.created_at.isoformat(),
        }


def take_records(ledger: Ledger, lines: Iterable[bytes]) -> RecordCounts:
    """Add the verdicts of another ledger, one JSON object a line, as `exported` gives them.

    Raises:
        StorageError: the ledger cannot be written.
    """
    n_new = n_known = n_humans = n_bad = 0
    for batch in _batches(_record_of(line) for line in lines if line.strip()):
        found = [record for record in batch if record is not None]
        n_bad += len(batch) - len(found)
        people = [_human_of(record) for record in found if record.judge == HUMAN]
        others = [record for record in found if record.judge != HUMAN]
        n_taken, n_added = ledger.add_humans(people), ledger.add_records(others)
        n_humans += n_taken
        n_new += n_added
        n_known += len(found) - n_taken - n_added
    return RecordCounts(n_new, n_known, n_humans, n_bad)


def person_rows(ledger: Ledger, only: Only) -> Iterator[dict[str, str]]:
    """Rows for a person to fill in, by `PERSON_COLUMNS`; no cell can be taken for a formula.

    Rows on one text follow each other; the answer that a person gave stands in the first.

    Raises:
        StorageError: the ledger cannot be read.
    """
    none = _none_word(ledger.labels())
    for batch in _batches(_shown(ledger.records(), only)):
        answers = ledger.humans_of([record.text for record, is_first in batch if is_first])
        for record, is_first in batch:
            answered = is_first and record.text in answers
            answer = (answers[record.text] or none) if answered else ""
            candidates = BETWEEN.join(record.candidates)
            cells = (record.text, candidates, record.judge, _word(record, none), answer)
            yield dict(zip(PERSON_COLUMNS, map(guarded_cell, cells), strict=True))


def take_answers(
    ledger: Ledger,
    rows: Iterable[Mapping[str, str] | None],
    *,
    labels: frozenset[str] = frozenset(),
    new_labels: bool = False,
) -> AnswerCounts:
    """Take what people filled in as their verdicts.

    Args:
        ledger: takes them.
        rows: with the keys `text` and `answer`; None is a row that cannot be read. The answer
            `none`, or what `person_rows` writes for it, means that no label fits, unless a label
            is called so.
        labels: known beside the candidates of the ledger and of the row itself.
        new_labels: whether an answer that is no known label is taken, too.

    Raises:
        StorageError: the ledger cannot be written.
    """
    reader = _AnswerReader(ledger.labels() | labels, new_labels=new_labels)
    n_read = n_taken = 0
    for batch in _batches(rows):
        people = [one for one in map(reader.read, batch) if one is not None]
        n_read += len(people)
        n_taken += ledger.add_humans(people)
    known = n_read - n_taken
    return AnswerCounts(n_taken, known, **reader.counts, unknown_labels=reader.unknown_labels)


def all_known(ledger: Ledger | None, rows: Iterable[Mapping[str, str] | None]) -> bool:
    """Whether the ledger holds every answer in `rows`; what cannot be read, it may not hold.

    Raises:
        StorageError: the ledger cannot be read.
    """
    labels = ledger.labels() if ledger is not None else frozenset()
    reader = _AnswerReader(labels, new_labels=True)
    for batch in _batches(rows):
        people = [one for one in map(reader.read, batch) if one is not None]
        known = ledger.humans_of([one.text for one in people]) if ledger is not None else {}
        if reader.counts["bad"] or any(known.get(one.text, "") != one.label for one in people):
            return False
    return True


class _AnswerReader:
    """Reads rows that people filled in, and counts those that say nothing."""

    def __init__(self, labels: frozenset[str], *, new_labels: bool) -> None:
        self._labels = labels
        self._none_words = {"none", NONE_OPTION, _none_word(labels)}
        self._new_labels = new_labels
        self._unknown: dict[str, None] = {}
        self.counts = {"unanswered": 0, "unknown": 0, "bad": 0}

    @property
    def unknown_labels(self) -> tuple[str, ...]:
        return tuple(itertools.islice(self._unknown, N_SHOWN))

    def read(self, row: Mapping[str, str] | None) -> HumanVerdict | None:
        text = unguarded_cell(row["text"]) if row else ""
        answer = unguarded_cell(row["answer"]).strip() if row else ""
        if not text.strip():
            self.counts["bad"] += 1
        elif not answer:
            self.counts["unanswered"] += 1
        elif answer not in self._labels and answer.casefold() in self._none_words:
            return HumanVerdict(text, None)
        elif answer in self._labels or self._new_labels or answer in _labels_of(row):
            return HumanVerdict(text, answer)
        else:
            self.counts["unknown"] += 1
            self._unknown[answer] = None
        return None


def _labels_of(row: Mapping[str, str] | None) -> set[str]:
    """The labels that a row names itself: its candidates, and what was said of it."""
    cells = [row.get(name) or "" for name in ("label", "judge_says", "model_says")] if row else []
    candidates = row.get("candidates") or "" if row else ""
    return {unguarded_cell(cell) for cell in (*cells, *candidates.split(BETWEEN))} - {""}


def _shown(records: Iterable[Record], only: Only) -> Iterator[tuple[Record, bool]]:
    """The records of interest, and whether each is the first on its text."""
    asked = (record for record in records if record.mode not in WRITING)
    for _, group in itertools.groupby(asked, key=lambda record: stored_text_key(record.text)):
        on_one_text = list(group)
        if only is Only.DISPUTED and not _disputed(on_one_text):
            continue
        if only is Only.UNREADABLE:
            on_one_text = [one for one in on_one_text if one.outcome is Outcome.UNREADABLE]
        for position, record in enumerate(on_one_text):
            yield record, position == 0


def _disputed(records: list[Record]) -> bool:
    """Whether verdicts name different labels, or one names a label that another passed over."""
    named = {record.label for record in records if record.outcome is Outcome.LABEL}
    refused = (record for record in records if record.outcome is Outcome.NONE)
    return len(named) > 1 or any(named & set(record.candidates) for record in refused)


def _none_word(labels: frozenset[str]) -> str:
    """What a person reads and writes for: none fits."""
    word = NONE_OPTION
    while word in labels:
        word += "_"
    return word


def _word(record: Record, none: str) -> str:
    if record.label is not None:
        return record.label
    return none if record.outcome is Outcome.NONE else f"({record.outcome})"


def guarded_cell(cell: str) -> str:
    """An apostrophe before what a spreadsheet would run as a formula, or reads as if it had one."""
    return f"'{cell}" if cell.lstrip("'").startswith(_FORMULA) else cell


def unguarded_cell(cell: str) -> str:
    """What `guarded_cell` made a cell of."""
    is_guarded = cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA)
    return cell[1:] if is_guarded else cell


def _human_record(human: HumanVerdict) -> Record:
    assert human.given_at is not None  # the ledger stamps each
    return Record(
        key=stored_text_key(human.text),
        text=human.text,
        candidates=(),
        mode="choose",
        judge=HUMAN,
        prompt_version="",
        outcome=Outcome.NONE if human.label is None else Outcome.LABEL,
        label=human.label,
        requests=0,
        latency_ms=0.0,
        prompt_tokens=0,
        completion_tokens=0,
        cost_usd=None,
        error="",
        version="",
        asked_in="",
        created_at=human.given_at,
    )


def _human_of(record: Record) -> HumanVerdict:
    return HumanVerdict(record.text, record.label, record.created_at)


def _record_of(line: bytes) -> Record | None:
    """A line as a record; None where it is none, or one that no judge can have given."""
    try:
        record = _RECORD.validate_json(line, strict=True)
    except ValidationError:
        return None
    return record if _is_sound(record) else None


def _is_sound(record: Record) -> bool:
    counts = (record.requests, record.prompt_tokens, record.completion_tokens)
    amounts = (record.latency_ms, record.cost_usd or 0.0)
    free = record.judge == HUMAN or record.mode in WRITING
    return (
        all(0 <= count <= _MAX_INTEGER for count in counts)
        and all(0 <= amount < math.inf for amount in amounts)
        and record.mode in _MODES
        and record.created_at.tzinfo is not None
        and bool(record.key and record.text.strip())
        and (record.outcome is Outcome.LABEL) == (record.label is not None)
        and (free or record.label is None or record.label in record.candidates)
    )


def _batches(items: Iterable[_T]) -> Iterator[list[_T]]:
    items = iter(items)
    while batch := list(itertools.islice(items, _BATCH)):
        yield batch
