"""`kill -9` at every stage of a run: it comes to the same, and nothing is paid for twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.killing import (
    PER_ROUND,
    Ended,
    Place,
    Point,
    Told,
    answered,
    appeared,
    check,
    outliving,
    run_and_kill,
    said,
    served,
    started,
)

RESULTS = Path(__file__).with_name("results") / "kill_points.md"

ENCODE, FIT, FINAL = said("Encoding"), said("Fitting"), said("full refit")
ROUND_1, ROUND_2 = served(3), served(PER_ROUND + PER_ROUND // 2)
BUNDLE, REPORT = appeared(".bundle.new", "bundle"), appeared("scorecard.json")
REFIT_1, REFIT_2 = answered(PER_ROUND), answered(2 * PER_ROUND)

POINTS = [
    Point("driver", "encoding", ENCODE, is_cold=True),
    Point("driver", "fitting", FIT),
    Point("driver", "3 requests into round 1", ROUND_1),
    Point("driver", "in the middle of round 2", ROUND_2),
    Point("driver", "refitting after round 1", REFIT_1),
    Point("driver", "refitting after round 2", REFIT_2),
    Point("driver", "final refit", FINAL),
    Point("driver", "bundle being written", BUNDLE),
    Point("driver", "report being written", REPORT),
    Point("everything", "3 requests into round 1", ROUND_1),
    Point("everything", "in the middle of round 2", ROUND_2),
    Point("everything", "refitting after round 1", REFIT_1),
    Point("everything", "bundle being written", BUNDLE),
    Point("coordinator", "encoding", ENCODE, is_cold=True),
    Point("coordinator", "fitting", FIT),
    Point("coordinator", "in the middle of round 2", ROUND_2),
    Point("coordinator", "refitting after round 2", REFIT_2),
    Point("coordinator", "final refit", FINAL),
    Point("pool", "being opened", started("pool")),
    Point("pool", "3 requests into round 1", ROUND_1),
    Point("pool", "in the middle of round 2", ROUND_2),
    Point("pool", "refitting after round 1", REFIT_1),
    Point("pool", "final refit", FINAL),
    Point("expert", "fitting", FIT),
    Point("expert", "in the middle of round 2", ROUND_2),
    Point("expert", "refitting after round 2", REFIT_2),
    Point("expert", "final refit", FINAL),
    Point("router", "in the middle of round 2", ROUND_2),
    Point("encoder", "encoding", ENCODE, is_cold=True),
]

HEAD = """\
| point | answers kept | served | in flight | served twice | exit codes | s |
|---|---:|---:|---:|---:|---|---:|
"""


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """A row for each point; kept when all of them were run."""
    rows: list[str] = []
    yield rows
    if len(rows) == len(POINTS):
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(_intro(rows) + HEAD + "".join(rows), encoding="utf-8")


@pytest.fixture(scope="module")
def workers() -> list[psutil.Process]:
    """What ran when something was killed."""
    return []


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_kill_loses_nothing_and_buys_only_what_was_in_flight_again(
    point: Point,
    here: Place,
    port: int,
    reference: Ended,
    table: list[str],
    workers: list[psutil.Process],
) -> None:
    run = here.folder / f"run-{POINTS.index(point)}"
    told = run_and_kill(point, here, run, port)
    workers += told.workers
    check(told, point, reference)
    table.append(_row(point, told))


def test_no_process_outlives_the_run_that_was_killed(workers: list[psutil.Process]) -> None:
    assert workers
    assert not outliving(workers)


def _intro(rows: list[str]) -> str:
    return (
        f"`kill -9` at {len(rows)} points of a run of {3 * PER_ROUND} questions, each "
        "compared with the run that nobody disturbed: same bundle, same answers, same history, no "
        "answer lost. Made by `make soak` (tests/soak/test_kill_points.py).\n\n"
        "*in flight*: requests that left and have no result in the ledger. *served twice*: of "
        "these, those that had reached the server.\n\n"
    )


def _row(point: Point, told: Told) -> str:
    codes = " ".join(map(str, told.codes))
    return (
        f"| {point} | {len(told.standing)} | {told.n_served} | {told.in_flight.total()} | "
        f"{told.doubled.total()} | {codes} | {told.seconds:.0f} |\n"
    )
