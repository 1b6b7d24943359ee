"""What commands print: JSON or text on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from red_ray.errors import RedRayError, UserError
from red_ray.types import Progress as Step

WIDTH = 132
"""Columns of what a file or a pipe gets, a job's log among them: nothing need be folded there."""

EXIT_FAILURE, EXIT_MISTAKE = 1, 2
EXIT_INTERRUPTED, EXIT_TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

STAGES = {
    "encode": "Encoding",
    "partition": "Starting the workers",
    "fit": "Fitting the experts",
    "calibrate": "Calibrating the router",
    "judge": "Asking the judge",
    "loop": "Asking the judge",
    "final": "Final refit",
}


LINE_S = 30.0
"""Between two lines of what a terminal would show on one."""


class Output:
    """Where a command's words go."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        out = Console()
        is_folded = out.is_terminal or "COLUMNS" in os.environ
        self.out = out if is_folded else Console(width=WIDTH)
        self.err = Console(stderr=True, highlight=False)

    def note(self, line: str) -> None:
        """Say one thing beside the result."""
        self.err.print(line, style="dim", markup=False, soft_wrap=True)

    def result(self, content: Mapping[str, Any]) -> None:
        """Print the result where JSON is asked for; else the command prints its own text."""
        if self.as_json:
            typer.echo(json.dumps(content, ensure_ascii=False, indent=2))
            sys.stdout.flush()  # `serve` goes on after it

    @contextmanager
    def doing(self, words: str) -> Iterator[Callable[[str], None]]:
        """Say what goes on: a line that is renewed on a terminal, one now and then elsewhere.

        Args:
            words: to begin with.

        Returns:
            A function that takes what is to be said now.
        """
        if self.err.is_terminal:
            with self.err.status(words) as status:
                yield status.update
            return
        yield _NowAndThen(self.note)

    @contextmanager
    def steps(self) -> Iterator[StepView]:
        """Show a run's steps: bars on a terminal, lines elsewhere."""
        if not self.err.is_terminal:
            yield StepView(self, None)
            return
        columns = (
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[count]:>5}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[message]}"),
        )
        with Progress(*columns, console=self.err, transient=False) as bars:
            yield StepView(self, bars)


class _NowAndThen:
    """Passes on a line where the last one is long enough ago."""

    def __init__(
        self, note: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._note = note
        self._clock = clock
        self._last_s = clock()

    def __call__(self, line: str) -> None:
        if self._clock() - self._last_s >= LINE_S:
            self._last_s = self._clock()
            self._note(line)


class StepView:
    """Renders the steps of a run."""

    def __init__(self, output: Output, bars: Progress | None) -> None:
        self._output = output
        self._bars = bars
        self._task: Any = None
        self._stage = ""

    def show(self, step: Step) -> None:
        """Show one step."""
        message = _iteration_line(step) if step.iteration else step.message
        if self._bars is None:
            if step.stage == "judge" and self._stage != "judge":
                message = message or f"{step.total} questions"
            if message:
                self._output.note(f"{STAGES[step.stage]}: {message}")
            self._stage = step.stage
            return
        if STAGES[step.stage] != self._stage:
            self._finish()
            self._stage = STAGES[step.stage]
            self._task = self._bars.add_task(self._stage, total=None, message="", count="")
        if message:
            self._bars.update(self._task, message=message)
        if step.stage == "judge" and not message:
            self._bars.update(self._task, message=f"{step.done} of {step.total} questions")
        if step.stage == "loop":
            count = f"{step.done}/{step.total}"
            self._bars.update(self._task, completed=step.done, total=step.total, count=count)
        if step.stage in ("final", "calibrate") and step.done == step.total:
            self._finish()

    def _finish(self) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=1, total=1)
            self._task = None


def _iteration_line(step: Step) -> str:
    one = step.iteration
    if one is None:
        return ""
    line = f"{one.n_asked} asked, {one.n_labelled} labels, {one.n_none} none"
    failed = one.n_unreadable + one.n_failed
    line += f", {failed} without an answer" if failed else ""
    line += f"; {one.n_train} training rows, {len(one.experts_refitted)} experts refitted"
    if one.estimated_accuracy is not None:
        line += f", estimated accuracy {one.estimated_accuracy:.1%}"
    return f"iteration {one.iteration}: {line}"


def catch_sigterm() -> None:
    """Let SIGTERM end the command as Ctrl-C does, also where a library has taken it meanwhile."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `timeout` sends it twice
    raise KeyboardInterrupt


def _was_terminated() -> bool:
    # Not told by the exception: what is raised in a signal handler, Ray replaces by its own.
    return signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


@contextmanager
def _terminable() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    catch_sigterm()
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextmanager
def guarded(
    output: Output,
    *,
    stopped: str | Callable[[], str] = "stopped; verdicts paid for are in the ledger",
) -> Iterator[None]:
    """Turn an error of ours, Ctrl-C and SIGTERM into one line and the exit code that it means.

    Args:
        output: where the line goes.
        stopped: the line where it was stopped and the exception says nothing itself, or what gives
            it then: a second Ctrl-C, in the midst of what follows the first, takes its place.
    """
    with _terminable():
        try:
            yield
        except RedRayError as error:
            code = EXIT_MISTAKE if isinstance(error, UserError) else EXIT_FAILURE
            output.err.print(f"red-ray: {error}", style="red", markup=False, soft_wrap=True)
            raise typer.Exit(code) from error
        except KeyboardInterrupt as stop:
            told = str(stop) or (stopped if isinstance(stopped, str) else stopped())
            output.err.print(f"red-ray: {told}", markup=False, soft_wrap=True)
            code = EXIT_TERMINATED if _was_terminated() else EXIT_INTERRUPTED
            raise typer.Exit(code) from None


def kept_note(kept: object, ledger: object) -> str:
    """What to say of a table of answers that a new one would have replaced."""
    return (
        f"answers that were not imported are kept in {kept}: "
        f"`red-ray ledger import {ledger} --input {kept}`"
    )


def notes(output: Output, lines: Sequence[str]) -> None:
    """Say several things beside the result."""
    for line in lines:
        output.note(line)
