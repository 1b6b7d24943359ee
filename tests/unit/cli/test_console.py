"""Where a command's words go: what a terminal would show on one line, a log gets now and then."""

from __future__ import annotations

import pytest
import typer

from red_ray.cli.console import LINE_S, WIDTH, Output, StepView, _NowAndThen, guarded
from red_ray.types import Progress


def test_a_log_gets_a_line_where_the_last_one_is_long_enough_ago() -> None:
    told, now_s = [], [0.0]
    tell = _NowAndThen(told.append, lambda: now_s[0])
    for line, at_s in (("a", 1.0), ("b", LINE_S), ("c", LINE_S + 1), ("d", 2.5 * LINE_S)):
        now_s[0] = at_s
        tell(line)
    assert told == ["b", "d"]


def test_what_is_no_terminal_gets_whole_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    output = Output(as_json=False)
    with output.doing("classifying") as tell:
        tell("1 row")
    output.out.print("x " * (WIDTH // 2 - 1) + "end", highlight=False)
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.count("\n") == 2
    assert output.out.width == WIDTH


def test_a_log_says_that_the_judge_is_asked_before_it_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = StepView(Output(as_json=True), None)
    for n_done, message in ((0, ""), (1, ""), (1, "pausing"), (2, "")):
        view.show(Progress("judge", n_done, 3, message))
    assert capsys.readouterr().err.splitlines() == [
        "Asking the judge: 3 questions",
        "Asking the judge: pausing",
    ]


def test_a_second_ctrl_c_is_told_what_was_so_by_then(capsys: pytest.CaptureFixture[str]) -> None:
    """It takes the place of the first one, in the midst of what this set going."""

    def command() -> None:
        stopped = "nothing was started"
        with guarded(Output(as_json=False), stopped=lambda: stopped):
            stopped = "it is down"
            try:
                raise KeyboardInterrupt
            finally:
                raise KeyboardInterrupt

    with pytest.raises(typer.Exit):
        command()
    assert capsys.readouterr().err == "red-ray: it is down\n"
