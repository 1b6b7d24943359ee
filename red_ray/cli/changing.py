"""A run whose labels a command changes: opened under its lock, kept with the state of before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from red_ray.bundle import MANIFEST
from red_ray.cli.console import Output
from red_ray.cli.running import score_rows
from red_ray.cli.show_label import show_change
from red_ray.errors import DataError
from red_ray.history import ENTRY, PENDING
from red_ray.run_folder import STATE, RunFolder
from red_ray.snapshot import ROWS
from red_ray.working_copy import Place, WorkingCopy, at_place

if TYPE_CHECKING:
    from red_ray.labels import Change
    from red_ray.labels.of_run import OpenRun
    from red_ray.model import RedModel, TextEncoder
    from red_ray.snapshot import Snapshot

CURVE = "thresholds.svg"


@dataclass
class ChangingRun:
    """A run whose labels a command changes.

    Attributes:
        output: where to tell of it.
        run: as it was opened.
        encoder: of its model.
    """

    output: Output
    run: OpenRun
    encoder: TextEncoder

    def keep(
        self, done: Change, rows: Snapshot, what: str, seen: frozenset[str] = frozenset()
    ) -> None:
        """Put the change in place, score the run's test rows anew, and show what it came to."""
        model = self.put(done, rows, what, seen)
        show_change(self.output, self.run.folder.name, what, model, done)

    def put(
        self, done: Change, rows: Snapshot, what: str, seen: frozenset[str] = frozenset()
    ) -> RedModel:
        """The same, without a word of it on stdout; the model with its bundle id."""
        from red_ray.evaluation.report import write_report
        from red_ray.evaluation.report.curve import write_curve
        from red_ray.labels.of_run import keep

        folder = self.run.folder
        had_card = (folder.path / "scorecard.json").exists()
        model = keep(self.run, done, rows, what=what, seen=seen)
        if rows.scored is not None:
            self.output.note(f"scoring {len(rows.scored.rows)} test rows")
            score_rows(folder, model, rows.scored, self.encoder)
        elif had_card:
            self.output.note("the scorecard was of the labels of before; run evaluate again")
        if model.promise is not None:
            write_curve(folder.path / CURVE, model.promise)
        write_report(folder.path)
        folder.save()
        return model


def refuse_bundle(place: Place) -> None:
    """Leave a bundle alone that has no run around it: labels change with the run's rows.

    Raises:
        DataError: it is one.
    """
    path, name = (place.path, place.name) if isinstance(place, WorkingCopy) else (place, str(place))
    is_run = (path / STATE).exists() or (path / ROWS).exists()
    if (path / MANIFEST).exists() or ((path / "bundle" / MANIFEST).exists() and not is_run):
        raise DataError(
            f"{name!r} is a bundle alone: labels change in a run, with its rows: give the folder "
            "that `red-ray train` made (its --out)"
        )


@contextmanager
def telling_of_cut_off(output: Output, place: Place) -> Iterator[None]:
    """Says where what is opened here puts a change in place that an earlier command began."""
    path = place.path if isinstance(place, WorkingCopy) else place
    told = ""
    with suppress(OSError, ValueError, KeyError):  # else there is none, or opening says what it is
        entry = json.loads((path / PENDING / ENTRY).read_text(encoding="utf-8"))
        what = "an undo" if entry["bundle"] else "a change"  # only a state of before has one
        told = f"finished {what} that was cut off: {entry['change']}"
    yield
    if told:
        output.note(told)


@contextmanager
def changing_run(output: Output, run: str) -> Iterator[ChangingRun]:
    """Open a run for a change; no other process changes it meanwhile.

    At an address one may: then the change is not kept (see `RunFolder.claim`).

    Raises:
        DataError: it is no finished run, or a bundle alone.
        BundleError: its bundle is damaged.
        EncoderError: its encoder is not to be had here.
        OutputError: another process changes it, or it was begun and not finished.
    """
    with at_place(run) as place:
        refuse_bundle(place)
        with telling_of_cut_off(output, place):
            folder = RunFolder.open(place)
        with folder.changing():
            folder.refuse_unfinished()
            from red_ray.labels.of_run import open_run

            state = open_run(folder)
            encoder = state.model.open_encoder()
            yield ChangingRun(output, state, encoder)
