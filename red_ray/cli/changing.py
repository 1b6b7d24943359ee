"""A run whose labels a command changes: opened under its lock, kept with the state of before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from red_ray.cli.console import Output
from red_ray.cli.running import score_rows
from red_ray.cli.show_label import show_change
from red_ray.run_folder import RunFolder
from red_ray.working_copy import at_place

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


@contextmanager
def changing_run(output: Output, run: str) -> Iterator[ChangingRun]:
    """Open a run for a change; no other process changes it meanwhile.

    At an address one may: then the change is not kept (see `RunFolder.claim`).

    Raises:
        DataError: it is no finished run.
        BundleError: its bundle is damaged.
        EncoderError: its encoder is not to be had here.
        OutputError: another process changes it, or it was begun and not finished.
    """
    with at_place(run) as place:
        folder = RunFolder.open(place)
        with folder.changing():
            folder.refuse_unfinished()
            from red_ray.labels.of_run import open_run

            state = open_run(folder)
            encoder = state.model.open_encoder()
            yield ChangingRun(output, state, encoder)
