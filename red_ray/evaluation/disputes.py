"""Labels that a person should look at, as a table to answer in."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from red_ray.judges import Ledger
from red_ray.judges.ledger.schema import stored_text_key
from red_ray.judges.ledger.transfer import Only, guarded_cell, person_rows, unguarded_cell
from red_ray.storage import writing
from red_ray.training.job import Dispute

COLUMNS = ("text", "label", "given_by", "judge_says", "model_says", "confidence", "answer")
"""`red-ray ledger import` reads `text` and `answer`."""

NONE = "(none of these)"


def write_disputes(
    path: Path, disputes: Iterable[Dispute], ledger: Ledger, *, texts: Iterable[str]
) -> int:
    """Write the labels that the model contradicts, then those on which verdicts disagree.

    Args:
        path: of the table.
        disputes: what the model contradicts.
        ledger: may be shared with other projects.
        texts: of the run; no verdict on another one is written.

    Returns:
        How many rows.

    Raises:
        StorageError: the disk is full, or the ledger cannot be read.
        OutputError: the file cannot be written.
    """
    n_rows = 0
    with writing(path), path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for row in (*_contradicted(disputes), *_between_rounds(ledger, texts)):
            writer.writerow(row)
            n_rows += 1
    return n_rows


def _contradicted(disputes: Iterable[Dispute]) -> Iterator[dict[str, str]]:
    for one in disputes:
        judge_says = "" if one.by_judge else one.judge_says or NONE
        cells = (one.text, one.label, "judge" if one.by_judge else "you", judge_says)
        row = dict(zip(COLUMNS, map(guarded_cell, (*cells, one.model_says)), strict=False))
        yield row | {"confidence": f"{one.confidence:.2f}"}


def _between_rounds(ledger: Ledger, texts: Iterable[str]) -> Iterator[dict[str, str]]:
    keys = frozenset(map(stored_text_key, texts))
    for row in person_rows(ledger, Only.DISPUTED):
        if stored_text_key(unguarded_cell(row["text"])) not in keys:
            continue
        yield {
            "text": row["text"],
            "label": row["verdict"],
            "given_by": row["judge"],
            "answer": row["answer"],
        }
