"""Texts that a person should look at, and what people say of them."""

from __future__ import annotations

import difflib
import itertools
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from red_ray.errors import DataError
from red_ray.evaluation.answers import numbered_answers
from red_ray.evaluation.disputes import NONE
from red_ray.judges import NONE_OPTION, Ledger
from red_ray.judges.ledger import HumanVerdict, Review
from red_ray.judges.ledger.schema import stored_text_key
from red_ray.judges.ledger.transfer import unguarded_cell
from red_ray.run_folder import DISPUTED, RunFolder
from red_ray.types import Outcome
from serve.schemas import Alternative, Feedback, Queue, QueueItem, Said

_log = logging.getLogger(__name__)

_MAX_TOLD = 200
"""Characters of an unknown label that are told, and compared with those that are known."""

_NO_WORD = {"", *(f"({outcome})" for outcome in Outcome)}
"""What stands in a table where nobody named a label."""


def queue(ledger: Ledger, run: RunFolder, *, limit: int) -> Queue:
    """What waits for a person: texts that were asked about, then disputed labels of training.

    Args:
        ledger: of the run.
        run: whose training it was.
        limit: how many at most.

    Raises:
        StorageError: the ledger cannot be read.
    """
    items = [_reviewed(one) for one in ledger.open_reviews(limit)]
    shown = {stored_text_key(item.text) for item in items}
    disputed = _disputed(run.path / DISPUTED)
    answered = ledger.humans_of([item.text for item in disputed.values()])
    left = [
        item for key, item in disputed.items() if key not in shown and item.text not in answered
    ]
    n_open = ledger.n_open_reviews() + len(left)
    return Queue(n_open=n_open, items=[*items, *left][:limit])


def keep(ledger: Ledger, answers: Sequence[Feedback], labels: Collection[str]) -> int:
    """Keep what people said, all or nothing; of a text the last word counts.

    Returns:
        How many said something new.

    Raises:
        DataError: a text is empty, or a label is none of `labels`.
        StorageError: the disk is full or the ledger went away.
    """
    for position, one in enumerate(answers):
        if not one.text.strip():
            raise DataError(f"answers[{position}] has an empty text; name the text it is about")
        if one.label is not None and one.label not in labels:
            raise DataError(f"answers[{position}]: {_unknown(one.label, labels)}")
    return ledger.add_humans(HumanVerdict(one.text, one.label) for one in answers)


def _unknown(label: str, labels: Collection[str]) -> str:
    label = label[:_MAX_TOLD]
    near = difflib.get_close_matches(label, labels, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else "null says that none fits"
    return f"the model has no label {label!r}; {remedy}"


def _reviewed(review: Review) -> QueueItem:
    best = review.candidates[:1]
    return QueueItem(
        text=review.text,
        reason="abstained" if review.reason == "abstained" else "escalated",
        candidates=[_candidate(label, share) for label, share in review.candidates],
        said=[Said(by="model", label=label) for label, _ in best],
        note=review.note,
        at=review.created_at,
    )


def _disputed(path: Path) -> Mapping[str, QueueItem]:
    """Disputed labels by text, as the table says them; read again when the file has changed."""
    try:
        info = path.stat()
    except OSError:
        return {}
    return _read(path, info.st_ino, info.st_mtime_ns, info.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, *_stamp: int) -> Mapping[str, QueueItem]:
    found: dict[str, QueueItem] = {}
    try:
        for row in _rows(path):
            key = stored_text_key(row["text"])
            item = _item(row)
            before = found.get(key)
            found[key] = item if before is None else _joined(before, item)
    except DataError as error:
        _log.warning("disputes_left_out", extra={"reason": str(error)})
    return found


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows that name a text, as they were before a spreadsheet could run them."""
    for _, row in numbered_answers(path):
        cells = {name: unguarded_cell(cell or "") for name, cell in (row or {}).items()}
        if cells.get("text", "").strip():
            yield cells


def _item(row: Mapping[str, str]) -> QueueItem:
    model_says, confidence = row.get("model_says", ""), _confidence(row)
    candidates = []
    if model_says and confidence is not None:
        candidates.append(_candidate(model_says, confidence))
    return QueueItem(text=row["text"], reason="disputed", candidates=candidates, said=[*_said(row)])


def _said(row: Mapping[str, str]) -> Iterator[Said]:
    # A judge's verdict of another question stands under the judge's name.
    by_user = row.get("given_by") == "you"
    words = (
        ("label", "user" if by_user else "judge"),
        ("judge_says", "judge"),
        ("model_says", "model"),
    )
    for column, by in words:
        word = row.get(column, "")
        if word not in _NO_WORD:
            label = None if word == NONE or word.rstrip("_") == NONE_OPTION else word
            yield Said.model_validate({"by": by, "label": label})


def _confidence(row: Mapping[str, str]) -> float | None:
    try:
        found = float(row.get("confidence", ""))
    except ValueError:
        return None
    return found if 0 <= found <= 1 else None


def _joined(item: QueueItem, more: QueueItem) -> QueueItem:
    """Two rows on one text."""
    said = dict.fromkeys(itertools.chain(item.said, more.said))
    return item.model_copy(
        update={"said": [*said], "candidates": item.candidates or more.candidates}
    )


def _candidate(label: str, confidence: float) -> Alternative:
    return Alternative(label=label, confidence=min(1.0, max(0.0, confidence)))
