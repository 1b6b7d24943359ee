"""What a person wrote into a table is told from what the ledger holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from red_ray.evaluation.answers import holds_unheard_answers, numbered_answers
from red_ray.judges import Ledger
from red_ray.judges.ledger import HumanVerdict

HEADER = "text,label,answer\n"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    opened.add_humans([HumanVerdict("heard", "a"), HumanVerdict("=none", None)])
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("rows", "unheard"),
    [
        ("", False),
        ("new,a,\n", False),
        ("heard,b,a\n'=none,a,none\n", False),
        ("new,a,b\n", True),
        ("heard,a,b\n", True),
        ("heard,a,none\n", True),
        ("'=none,a,a\n", True),
        ("heard,b,a,a cell too many\n", True),
    ],
)
def test_an_answer_that_the_ledger_does_not_hold_is_unheard(
    ledger: Ledger, tmp_path: Path, rows: str, unheard: bool
) -> None:
    table = tmp_path / "disputed.csv"
    table.write_text(HEADER + rows)
    assert holds_unheard_answers(table, ledger) == unheard


def test_without_a_ledger_every_answer_is(tmp_path: Path) -> None:
    table = tmp_path / "disputed.csv"
    for answer in ("a", ""):
        table.write_text(f"{HEADER}heard,b,{answer}\n")
        assert holds_unheard_answers(table, None) == bool(answer)


def test_a_table_that_cannot_be_read_may_hold_some(ledger: Ledger, tmp_path: Path) -> None:
    table = tmp_path / "disputed.csv"
    assert not holds_unheard_answers(table, ledger)
    table.write_bytes(b"\xff\xfe no table \x00")
    assert holds_unheard_answers(table, ledger)


def test_rows_are_told_with_the_line_that_they_begin_on(tmp_path: Path) -> None:
    table = tmp_path / "disputed.csv"
    table.write_text(f'{HEADER}"two\nlines",a,\n\nlast,b,c\n')
    assert [(line, row["text"]) for line, row in numbered_answers(table) if row] == [
        (2, "two\nlines"),
        (5, "last"),
    ]
