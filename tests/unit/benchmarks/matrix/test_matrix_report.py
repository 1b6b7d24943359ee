"""The report: every hole with its reason, tables that agree, pictures that hold all rows."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from benchmarks.matrix import intervals
from benchmarks.matrix.confusion import MOST_LABELS, NONE, OTHER, confusion
from benchmarks.matrix.overview import overview
from benchmarks.matrix.report import confusion_picture, write_report
from benchmarks.matrix.report.tables import by_method, comparison, of_task
from benchmarks.matrix.results import read_matrix
from tests.unit.benchmarks.matrix.planted import Planted, exactly

TIMED_OUT = "took longer than 60 s"
NAMED = ("against", "short")
MEMORY = "took 9,000 MB <b>& more</b>"
COLUMNS = ("majority", "flat", "RED speed", "BERT", "Qwen zero", "Qwen LoRA", "judge")


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """Two tasks, seven columns, two seeds; one column a hole, one half a hole, one not run."""
    patch = pytest.MonkeyPatch()
    patch.setattr(intervals, "N_RESAMPLES", 1000)
    folder = tmp_path_factory.mktemp("matrix")
    tasks = {"sst2": {"path": "sst2"}, "cb": {"path": "cb"}}
    made = Planted(folder, COLUMNS, tasks=tasks, seeds=(0, 1))
    labels = {"sst2": ("no", "yes"), "cb": ("contradiction", "entailment", "neutral")}
    for task in tasks:
        for at, column in enumerate(COLUMNS):
            for seed in (0, 1):
                made.cell(
                    column,
                    np.random.default_rng([at, seed]).random(150) < 0.5 + 0.06 * at,
                    seed=seed,
                    task=task,
                    n=150,
                    labels=labels[task],
                    unreadable=range(3) if column == "Qwen zero" else (),
                    history=[{"epoch": e, "train_loss": 1 / e} for e in (1, 2, 3)],
                )
    for seed in (0, 1):
        made.hole("BERT", "timed_out", TIMED_OUT, seed=seed, task="cb")
    made.hole("flat", "out_of_memory", MEMORY, seed=1, task="sst2")
    for file in (folder / "sst2--Qwen_LoRA--1").iterdir():
        file.unlink()
    (folder / "sst2--Qwen_LoRA--1").rmdir()
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def page(matrix):
    return write_report(matrix).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found(matrix):
    return overview(read_matrix(matrix))


def test_every_hole_stands_in_every_table_with_its_reason(found):
    overview = {row[0]: row for row in comparison(found).rows}
    assert overview["BERT"][3] == f"hole: timed out: {TIMED_OUT}"
    assert overview["flat"][2].endswith(f"; hole: seed 1: out of memory: {MEMORY}")
    assert overview["Qwen LoRA"][2].endswith("; hole: seed 1: not run")
    task = {row[0]: " ".join(row) for row in of_task(found, "cb").rows}
    assert f"hole: timed out: {TIMED_OUT}" in task["BERT"]
    tuned = next(grid for grid in by_method(found) if grid.title.startswith("fine_tune"))
    (row,) = (row for row in tuned.rows if row[1] == "cb")
    assert row[2] == f"hole: timed out: {TIMED_OUT}"


def test_the_page_names_the_holes_and_escapes_what_they_say(page):
    assert page.count(TIMED_OUT) >= 5
    assert "<b>& more</b>" not in page
    assert "took 9,000 MB &lt;b&gt;&amp; more&lt;/b&gt;" in page
    assert "hole: seed 1: not run" in page
    assert "4\u00a0holes" in page


def test_the_page_loads_nothing(page):
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=[\"']?(http|//)", page)
    assert "@import" not in page
    assert "<script" not in page


def test_the_page_shows_what_it_should(page):
    for anchor in ("comparison", "cautions", "questions", "task-1", "task-2", "methods"):
        assert f'id="{anchor}"' in page, anchor
    for text in ("Accuracy against latency", "Accuracy against memory", "Learning curves"):
        assert text in page, text
    assert page.count('class="front"') + page.count("dot other") >= 2
    assert page.count("chart confusion") == 13  # seven columns on two tasks, less one hole
    for name in ("specificity", "recall", "balance gap", "MCC"):
        assert f">{name}</th>" in page, name


def test_csv_and_parquet_agree_and_hold_every_cell(page, matrix):
    del page
    report = matrix / "report"
    parquet = pq.read_table(report / "comparison.parquet")
    table = csv.read_csv(report / "comparison.csv")
    assert table.num_rows == parquet.num_rows == 28
    assert table.column_names == parquet.column_names
    for one, other in zip(table.to_pylist(), parquet.to_pylist(), strict=True):
        for name in ("task", "column", "method", "seed", "status", "accuracy", "mcc_low"):
            assert one[name] == other[name] or (not one[name] and not other[name]), name
    rows = {(row["task"], row["column"], row["seed"]): row for row in parquet.to_pylist()}
    hole = rows["cb", "BERT", 0]
    assert (hole["status"], hole["error"], hole["accuracy"]) == ("timed_out", TIMED_OUT, None)
    assert rows["sst2", "Qwen LoRA", 1]["status"] == "not run"
    done = rows["sst2", "Qwen zero", 0]
    assert done["n"] == 150
    assert done["n_unreadable"] == 3
    assert done["accuracy"] == done["n_right"] / 150
    assert done["throughput_batch_size"] == 32
    assert rows["cb", "flat", 0]["recall"] is None


def test_pairs_are_written(page, matrix, found):
    del page
    rows = csv.read_csv(matrix / "report" / "pairs.csv").to_pylist()
    assert len(rows) == sum(len(one.pairs) for one in found.compared.values()) == 21 + 15
    first, pair = rows[0], next(iter(found.compared.values())).pairs[0]
    assert first["difference"] == pytest.approx(pair.difference.value)
    shares = ("both_right", "only_a_wrong", "only_b_wrong", "both_wrong")
    assert sum(first[name] for name in shares) == pytest.approx(1)


def test_markdown_has_the_same_figures_as_the_page(matrix, page):
    short, full = ((matrix / "report" / name).read_text() for name in ("short.md", "tables.md"))
    figure = re.search(r"\| RED speed \| red_ray, speed \| ([\d.]+\s%) ", short)[1]
    assert figure in page
    assert figure in full
    assert f"hole: timed out: {TIMED_OUT}" in short
    assert full.count(TIMED_OUT) >= 4
    widths = {line.count(" | ") for line in short.splitlines() if line.startswith("| ")}
    assert len(widths) == 1


def test_a_matrix_without_a_finished_cell_still_has_a_page(tmp_path):
    Planted(tmp_path, ("flat", "BERT"))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("hole: not run") >= 4
    assert "No cell has figures." in page
    assert "no cell has figures" in page


def test_a_confusion_of_many_labels_is_bounded_and_loses_no_row():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 150, 3000)
    answered = np.where(rng.random(3000) < 0.8, true, rng.integers(0, 150, 3000))
    answered[:40] = -1
    labels = [f"label {at} <&>" for at in range(150)]
    found = confusion(true, answered, labels)
    assert found.counts.shape == (MOST_LABELS, MOST_LABELS + 2)
    assert found.columns[-2:] == (OTHER, NONE)
    for label, counts in zip(found.rows, found.counts, strict=True):
        assert counts.sum() == (true == labels.index(label)).sum()
    shown = {labels.index(label) for label in found.rows}
    outside = ~np.isin(true, list(shown))
    assert found.n_hidden_wrong == (answered != true)[outside].sum()
    assert found.n_hidden == 138


def test_a_confusion_picture_is_svg_with_its_counts():
    true, answered = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, -1])
    picture = confusion_picture(true, answered, ("a<b", "c"))
    root = ElementTree.fromstring(picture)
    texts = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("2") == 1
    assert texts.count("1") == 3
    assert NONE in texts
    assert "a<b" in texts
    titles = [one.text for one in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "c answered as unreadable: 1 of 2" in titles


def test_intervals_of_shares_stay_within_them(tmp_path):
    planted = Planted(tmp_path, ("flat",), seeds=(0, 1))
    for seed in (0, 1):
        planted.cell("flat", exactly(40 - seed, 40), seed=seed, n=40)
    figures = overview(read_matrix(tmp_path)).summaries["sst2", "flat"].figures
    assert figures["accuracy"].interval[1] == 1.0
    low, high = figures["n_unreadable_share"].interval
    assert (low, round(high, 3)) == (0.0, 0.088)  # none of 40 is not none at all


def test_columns_are_held_against_the_one_that_is_named(tmp_path):
    made = Planted(tmp_path, ("flat", "BERT", "RED speed"), against="BERT")
    for seed in (0, 1, 2):
        made.cell("flat", exactly(300, 400), seed=seed, n=400)
        made.cell("BERT", exactly(380, 400), seed=seed, n=400)
    write_report(tmp_path)
    against, short = ((tmp_path / "report" / f"{name}.md").read_text() for name in NAMED)
    pair = overview(read_matrix(tmp_path)).compared["sst2"].pair("flat", "BERT")
    low, high = (100 * end for end in pair.difference.interval)
    told = f"−20.0 (−{-low:.1f} to −{-high:.1f}) *"
    assert "| sst2 | flat | 75.0" in against
    assert against.count(told) == short.count(told) == 1
    assert "less BERT" in against
    assert "| --- | --- | --- | ---: | ---: | ---: | ---: |" in against
    assert "hole: not run" in against
    assert "hole: not run" in short


def test_the_page_holds_columns_against_the_one_that_is_named_and_hides_what_is_not_asked(tmp_path):
    made = Planted(tmp_path, ("flat", "RED speed"), against="RED speed")
    for seed in (0, 1, 2):
        made.cell("flat", exactly(300, 400), seed=seed, n=400)
        made.cell("RED speed", exactly(380, 400), seed=seed, n=400)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Held against RED speed" in page
    assert "−20.0" in page
    asked, _, rest = page.partition("Not asked here: ")
    assert "Can small LLMs match" not in asked
    assert "Can small LLMs match" in rest
    full = (tmp_path / "report" / "tables.md").read_text(encoding="utf-8")
    assert "1. **Which approach is the most efficient" in full
    assert "Not asked here:\n\n- Can small LLMs match" in full


def test_columns_that_are_held_against_none_have_no_such_table(page, matrix):
    assert "Held against" not in page
    assert not (matrix / "report" / "against.md").exists()
