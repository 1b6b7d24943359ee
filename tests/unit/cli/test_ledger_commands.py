"""`red-ray ledger`: from a ledger to people, to another ledger, and what a mistake says."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from red_ray.config import load_config
from red_ray.judges.ledger import HumanVerdict, Kept, Ledger
from red_ray.run_folder import RunFolder
from red_ray.types import Candidate, Outcome, Question, Verdict
from tests.ledger_suite import kept, question, received, sent, verdict
from tests.unit.cli.conftest import Invoke
from tests.unit.cli.running import said


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two judges, one dispute, one text that begins like a formula, one answer of a person."""
    path = tmp_path / "ledger.sqlite"
    other = replace(verdict("k2"), judge="other", label="top_up")
    with closing(Ledger(path)) as ledger:
        ledger.write([kept(verdict("k1"), text="=lost"), kept(other, text="=lost")])
        ledger.write([kept(verdict("k3", Outcome.UNREADABLE), text="hm")])
        ledger.write([sent(0), sent(1), sent(2)])
        ledger.write([received(0, prompt_tokens=90, cost_usd=0.2, latency_ms=100.0)])
        ledger.write([received(1, "timeout", latency_ms=300.0, kept_estimate=True)])
        ledger.add_humans([HumanVerdict("seen", None)])
    return path


def counts(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def humans_of(place: Path, *texts: str) -> dict[str, str | None]:
    with closing(Ledger(place)) as ledger:
        return ledger.humans_of(texts)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def fill_in(path: Path, delimiter: str = ",", **answers: str) -> None:
    """Write the file as a spreadsheet does, with an answer by the verdict of its row."""
    rows = rows_of(path)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(row | {"answer": answers.get(row["verdict"], "")} for row in rows)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")


def test_a_ledger_moves_by_jsonl(red_ray: Invoke, place: Path, tmp_path: Path) -> None:
    file, new = tmp_path / "all.jsonl", tmp_path / "new.sqlite"
    told = counts(red_ray("ledger", "export", place, "--output", file, "--json"))
    assert told == {"rows": 4, "output": str(file)}
    told = counts(red_ray("ledger", "import", new, "--input", file, "--json"))
    assert told == {"new": 3, "known": 0, "humans": 1, "bad": 0}
    again = tmp_path / "again.jsonl"
    red_ray("ledger", "export", new, "--output", again)
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_people_answer_in_a_csv(
    red_ray: Invoke, place: Path, tmp_path: Path, delimiter: str
) -> None:
    file = tmp_path / "ask.csv"
    told = counts(red_ray("ledger", "export", place, "--output", file, "--only=disputed", "--json"))
    assert told["rows"] == 2
    assert [row["text"] for row in rows_of(file)] == ["'=lost", "'=lost"]
    fill_in(file, delimiter, top_up="card_lost")
    told = counts(red_ray("ledger", "import", place, "--input", file, "--json"))
    assert (told["taken"], told["unanswered"], told["bad"]) == (1, 1, 0)
    assert humans_of(place, "=lost") == {"=lost": "card_lost"}


def test_a_spreadsheet_sees_that_it_is_utf8(red_ray: Invoke, place: Path, tmp_path: Path) -> None:
    file = tmp_path / "ask.csv"
    red_ray("ledger", "export", place, "--output", file)
    assert file.read_bytes().startswith(b'\xef\xbb\xbf"text",')


def test_answers_that_are_no_label_are_told(red_ray: Invoke, place: Path, tmp_path: Path) -> None:
    file = tmp_path / "ask.csv"
    red_ray("ledger", "export", place, "--output", file)
    fill_in(file, card_lost="lost it", **{"(unreadable)": "top_up"})
    result = red_ray("ledger", "import", place, "--input", file)
    assert "answers taken: 1" in result.stdout
    assert "not taken: 1, such as 'lost it'; add --new-labels" in result.stderr
    result = red_ray("ledger", "import", place, "--input", file, "--new-labels", "--json")
    told = counts(result)
    assert (told["taken"], told["known"], told["unknown"]) == (1, 1, 0)


def test_the_labels_of_the_runs_model_are_known(
    red_ray: Invoke, finished: RunFolder, tmp_path: Path
) -> None:
    label = json.loads((finished.bundle / "manifest.json").read_text())["labels"][0]
    file = tmp_path / "answers.csv"
    file.write_text(f"text,answer\nany text,{label}\nother text,no such label\n")
    with closing(Ledger(finished.ledger)) as ledger:
        ledger.write([Kept(verdict(), question())])
    result = red_ray("ledger", "import", finished.path, "--input", file, "--json")
    assert (counts(result)["taken"], counts(result)["unknown"]) == (1, 1)
    assert humans_of(finished.ledger, "any text") == {"any text": label}


def test_answers_may_be_there_before_the_first_run(red_ray: Invoke, tmp_path: Path) -> None:
    """As a person fills in the `disputed.csv` of an audit: its rows name their labels."""
    disputed, run = tmp_path / "disputed.csv", tmp_path / "run"
    rows = ["text,label,model_says,answer", "a,top_up,card_lost,card_lost", "b,top_up,x,typo"]
    disputed.write_text("\n".join(rows))
    place = run / "ledger.sqlite"
    taken = counts(red_ray("ledger", "import", place, "--input", disputed, "--json"))
    assert (taken["taken"], taken["unknown"]) == (1, 1)
    assert humans_of(place, "a") == {"a": "card_lost"}
    assert RunFolder.create(run, load_config()).ledger == place


def test_bad_rows_are_told_and_the_rest_is_taken(
    red_ray: Invoke, place: Path, tmp_path: Path
) -> None:
    file = tmp_path / "answers.csv"
    file.write_text('text,answer\nfirst,top_up\na,b,c\n\nalone\n"second\nline",none\n')
    result = red_ray("ledger", "import", place, "--input", file)
    assert "answers taken: 2" in result.stdout
    assert "rows that cannot be read, left out: 2" in result.stderr
    assert humans_of(place, "first", "second line") == {"first": "top_up", "second line": None}
    lines = tmp_path / "lines.jsonl"
    red_ray("ledger", "export", place, "--output", lines)
    lines.write_bytes(b"{not json\n" + lines.read_bytes())
    result = red_ray("ledger", "import", tmp_path / "new.sqlite", "--input", lines)
    assert "new verdicts: 3" in result.stdout
    assert "lines that are no verdict, left out: 1" in result.stderr


def test_a_long_text_comes_back(red_ray: Invoke, place: Path, tmp_path: Path) -> None:
    long = "word " * 40_000
    file = tmp_path / "answers.csv"
    file.write_text(f'text,answer\n"{long}",top_up\n')
    red_ray("ledger", "import", place, "--input", file)
    assert humans_of(place, long) == {long: "top_up"}


def test_an_empty_ledger_gives_an_empty_file(red_ray: Invoke, tmp_path: Path) -> None:
    Ledger(tmp_path / "empty.sqlite").close()
    for name in ("out.csv", "out.jsonl"):
        result = red_ray("ledger", "export", tmp_path / "empty.sqlite", "--output", tmp_path / name)
        assert result.exit_code == 0, result.output
    assert rows_of(tmp_path / "out.csv") == []
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_stats_tell_outcomes_results_cost_and_latency(red_ray: Invoke, place: Path) -> None:
    told = counts(red_ray("ledger", "stats", place, "--json"))
    judges = told["judges"]
    assert isinstance(judges, dict)
    assert told["human_verdicts"] == 1
    assert judges["fake"] == {
        "verdicts": {"label": 1, "unreadable": 1},
        "requests": 3,
        "results": {"label": 1, "timeout": 1},
        "result_unknown": 1,
        "tokens": 2090,
        "cost_usd": 1.2,
        "latency_ms": {"p50": 200.0, "p95": 290.0, "p99": 298.0},
    }
    assert judges["other"]["latency_ms"] is None
    assert judges["other"]["cost_usd"] is None


def test_stats_for_people(red_ray: Invoke, place: Path) -> None:
    shown = red_ray("ledger", "stats", place).stdout
    for words in ("2: 1 label, 1 unreadable", "p50 200 ms", "1, counted with", "no price known"):
        assert words in shown


def test_the_ledger_that_a_run_is_configured_with_is_opened(
    red_ray: Invoke, finished: RunFolder
) -> None:
    config = finished.path / "config.yaml"
    text = config.read_text().replace("ledger: null", "ledger: postgresql://x@127.0.0.1:9/none")
    config.write_text(text)
    said(red_ray("ledger", "stats", finished.path), 2, "cannot open the ledger", "127.0.0.1:9")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["stats", "nowhere.sqlite"], "there is no ledger"),
        (["stats", "."], "it has no config.yaml"),
        (["stats", "mysql://h/x"], "must be postgresql://"),
        (["export", "{}", "--output", "x.parquet"], "a .jsonl or a .csv"),
        (["export", "{}", "--output", "x.jsonl", "--only", "disputed"], "is for a .csv"),
        (["export", "{}", "--output", "{}.csv"], "there is no folder"),
        (["import", "{}", "--input", "nowhere.csv"], "there is no file"),
        (["import", "{}", "--input", "x.xlsx"], "a .jsonl or a .csv"),
        (["import", "typo", "--input", "answers.csv"], "there is no ledger"),
        (["import", "{}", "--input", "body.csv"], "no column 'text'"),
        (["import", "{}", "--input", "empty.csv"], "no column 'text'"),
        (["import", "{}", "--input", "latin.csv"], "is not UTF-8"),
        (["import", "{}", "--input", "prose.jsonl"], "none of the 2 lines"),
        (["export", "{}", "--output", "answers.csv"], "is there already"),
    ],
)
def test_a_mistake_is_one_line(
    red_ray: Invoke,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("answers.csv").write_text("text,answer\na,top_up\n")
    Path("body.csv").write_text("body,answer\na,top_up\n")
    Path("empty.csv").write_text("")
    Path("latin.csv").write_bytes("text,answer\nzurück,top_up\n".encode("latin-1"))
    Path("prose.jsonl").write_text("not\njson\n")
    files = sorted(path.name for path in tmp_path.iterdir())
    named = [str(place) if arg == "{}" else arg.replace("{}", "no/folder") for arg in args]
    said(red_ray("ledger", *named), 2, words)
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_candidates_are_shown_beside_the_text(red_ray: Invoke, tmp_path: Path) -> None:
    path, file = tmp_path / "l.sqlite", tmp_path / "ask.csv"
    asked = Question("t", (Candidate("a"), Candidate("-b")))
    with closing(Ledger(path)) as ledger:
        ledger.write([Kept(Verdict("k", Outcome.LABEL, "-b", "j", 1, 1.0), asked)])
    red_ray("ledger", "export", path, "--output", file)
    (row,) = rows_of(file)
    assert (row["candidates"], row["verdict"]) == ("a | -b", "'-b")


def test_a_label_that_was_mistyped_is_suggested(
    red_ray: Invoke, place: Path, tmp_path: Path
) -> None:
    file = tmp_path / "ask.csv"
    file.write_text("text,answer\nhm,top-up\n")
    told = red_ray("ledger", "import", place, "--input", file).stderr
    assert "such as 'top-up' (did you mean 'top_up'?); add --new-labels" in told


def test_two_answers_to_one_text_are_refused_and_none_is_taken(
    red_ray: Invoke, place: Path, tmp_path: Path
) -> None:
    file = tmp_path / "ask.csv"
    file.write_text('text,answer\nhm,top_up\n"two\nlines",\n HM,card_lost\n')
    told = said(red_ray("ledger", "import", place, "--input", file), 2)
    assert "'top_up' in line 2, 'card_lost' in line 5; clear one of them" in told
    assert humans_of(place, "hm") == {}


def test_the_same_answer_twice_is_one(red_ray: Invoke, place: Path, tmp_path: Path) -> None:
    file = tmp_path / "ask.csv"
    file.write_text("text,answer\nhm,top_up\nhm,top_up\n")
    assert counts(red_ray("ledger", "import", place, "--input", file, "--json"))["taken"] == 1


def test_where_nothing_is_to_be_filled_in_nobody_is_told_to(
    red_ray: Invoke, tmp_path: Path
) -> None:
    place, file = tmp_path / "empty.sqlite", tmp_path / "ask.csv"
    Ledger(place).close()
    result = red_ray("ledger", "export", place, "--output", file)
    assert "0 rows written" in result.stdout
    assert result.stderr == ""
