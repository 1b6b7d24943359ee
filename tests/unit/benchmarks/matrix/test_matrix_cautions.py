"""Each fault of the two benchmarks before ours, planted: it is flagged, or impossible."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from benchmarks.matrix import intervals
from benchmarks.matrix.cautions import cautions, check_apart
from benchmarks.matrix.compare import compare_task
from benchmarks.matrix.results import read_matrix
from benchmarks.matrix.tasks import Loaded, Rows, Task
from red_ray.errors import DataError
from tests.unit.benchmarks.matrix.planted import Planted, exactly, measures


def told(planted, kind=None):
    """Sentences of a matrix's warnings, of one kind or by kind."""
    matrix = read_matrix(planted.folder)
    compared = {task: compare_task(matrix, task) for task in matrix.config.tasks}
    found = cautions(matrix, compared)
    return [one.sentence for one in found if one.kind == kind] if kind else {c.kind for c in found}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(intervals, "N_RESAMPLES", 1000)


@pytest.fixture
def planted(tmp_path):
    """Two good columns over three seeds; nothing to warn of but few rows."""
    made = Planted(tmp_path)
    for seed in (0, 1, 2):
        made.cell("flat", exactly(340, 400), seed=seed, n=400)
        made.cell("BERT", exactly(380, 400), seed=seed, n=400)
    return made


def test_a_sound_matrix_gives_no_warning(planted):
    assert told(planted) == set()


def test_a_mislabelled_method_is_not_shown_under_its_column(planted):
    """A zero-shot run whose folder is named after the fine-tuned column."""
    planted.cell("BERT", 0.6, seed=1, n=400, method="zero_shot")
    matrix = read_matrix(planted.folder)
    assert [cell.cell.seed for cell in matrix.of("sst2", "BERT")] == [0, 2]
    (sentence,) = told(planted, "mislabelled")
    assert "'zero_shot', the configuration 'fine_tune'" in sentence
    assert compare_task(matrix, "sst2").accuracy["BERT"].value == pytest.approx(0.95)


def test_a_cell_of_other_settings_is_not_shown_as_those_of_now(planted):
    """The configuration was changed, and the run that would have followed was stopped."""
    place = planted.folder / "matrix.yaml"
    content = yaml.safe_load(place.read_text())
    content["columns"][1] |= {"learning_rate": 0.1, "time_s": 5.0}
    place.write_text(yaml.safe_dump(content))
    assert read_matrix(planted.folder).of("sst2", "BERT") == ()
    (sentence,) = told(planted, "stale")
    assert "learning_rate was 2e-05, is 0.1; run it again" in sentence


def test_a_models_folder_is_the_same_by_its_end(tmp_path):
    """A run keeps the whole path of it, whatever folder it is reported from."""
    made = Planted(tmp_path, ("BERT",))
    made.cell("BERT", exactly(340, 400), n=400)
    for path, n in (("/else/where/bert-base-uncased", 1), ("/else/where/bert-large", 0)):
        place = tmp_path / "sst2--BERT--0" / "cell.json"
        stated = json.loads(place.read_text())
        stated["settings"]["model"] = path
        place.write_text(json.dumps(stated))
        assert len(read_matrix(tmp_path).of("sst2", "BERT")) == n


def test_a_folder_of_another_column_is_not_shown(planted):
    place = planted.folder / "sst2--BERT--0" / "cell.json"
    stated = json.loads(place.read_text())
    stated["settings"]["name"] = "BERT, longer"
    place.write_text(json.dumps(stated))
    (sentence,) = told(planted, "stale")
    assert "its folder is of the column 'BERT, longer'" in sentence


@pytest.mark.parametrize(
    "figures",
    [
        {"latency_s": {"p50": 0.01, "p95": 0.02}},
        {"latency_ms": measures("BERT", 0)["latency_ms"] | {"per": "batch"}},
        {"latency_ms": measures("BERT", 0)["latency_ms"] | {"batch_size": 32}},
        {"latency_ms": 12.0},
        {"throughput_per_s": {"texts": 320, "batch_size": 32, "per_batch": 2.0}},
        {"peak_gb": 1.2},
    ],
)
def test_a_figure_of_another_unit_cannot_be_shown(planted, figures):
    planted.cell("BERT", 0.9, seed=1, n=400, **figures)
    matrix = read_matrix(planted.folder)
    assert 1 not in [cell.cell.seed for cell in matrix.of("sst2", "BERT")]
    (sentence,) = told(planted, "unusable")
    assert "results.json" in sentence


def test_seconds_told_as_milliseconds_are_flagged(planted):
    latency = {"p50": 0.012, "p95": 0.02, "mean": 0.013, "p95_ci": [0.015, 0.03], "n": 50}
    batch = {"texts": 320, "batch_size": 32, "per_s": 400.0}
    planted.cell("BERT", exactly(380, 400), n=400, latency_ms=latency, throughput_per_s=batch)
    (sentence,) = told(planted, "unit")
    assert "one of the two is of another unit" in sentence


def test_a_latency_per_batch_is_flagged(planted):
    batch = {"texts": 320, "batch_size": 32, "per_s": 400.0}
    whole = 1000 * 32 / 400.0
    latency = {"p50": whole, "p95": 90.0, "mean": whole, "p95_ci": [85.0, 99.0], "n": 50}
    planted.cell("BERT", exactly(380, 400), n=400, latency_ms=latency, throughput_per_s=batch)
    (sentence,) = told(planted, "unit")
    assert "may be a batch's" in sentence


def test_an_unreadable_answer_is_wrong_and_named(planted):
    for seed in (0, 1, 2):
        planted.cell("BERT", exactly(400, 400), seed=seed, n=400, unreadable=range(0, 400, 10))
    matrix = read_matrix(planted.folder)
    assert matrix.of("sst2", "BERT")[0].figures["accuracy"] == 0.9
    assert compare_task(matrix, "sst2").accuracy["BERT"].value == pytest.approx(0.9)
    (sentence,) = told(planted, "unreadable")
    assert "no readable answer to 10.0 % of the rows" in sentence


def test_a_few_unreadable_answers_are_no_warning(planted):
    planted.cell("BERT", exactly(400, 400), n=400, unreadable=[7])
    assert told(planted, "unreadable") == []


def test_a_missing_cell_is_named_with_why(planted):
    planted.hole("BERT", "out_of_memory", "took 9,000 MB", seed=2)
    (sentence,) = told(planted, "hole")
    assert sentence == "BERT on sst2 has no figures of seed 2: out of memory: took 9,000 MB."
    assert told(planted, "seeds") == ["BERT on sst2 stands on 2 of the 3 seeds asked for."]


def test_a_cell_that_was_not_run_is_named(tmp_path):
    made = Planted(tmp_path, seeds=(0, 1))
    made.cell("flat", exactly(340, 400), n=400)
    assert "BERT on sst2 has no figures of seeds 0, 1: not run." in told(made, "hole")


def test_one_seed_is_said_once(tmp_path):
    tasks = ("rte", "sst2")
    made = Planted(
        tmp_path, ("flat", "BERT"), tasks={one: {"path": one} for one in tasks}, seeds=(0,)
    )
    for task in tasks:
        for column in ("flat", "BERT"):
            made.cell(column, exactly(340, 400), n=400, task=task)
    assert told(made, "seeds") == [
        "One seed was asked for of all columns: the intervals hold for these trainings alone."
    ]


def test_one_seed_of_a_task_is_said_of_its_columns(tmp_path):
    tasks = {"rte": {"path": "rte", "per_label": 9, "seeds": [1]}, "sst2": {"path": "sst2"}}
    made = Planted(tmp_path, ("flat",), tasks=tasks)
    made.cell("flat", exactly(340, 400), n=400, task="rte", seed=1)
    made.cell("flat", exactly(340, 400), n=400, seed=2)
    one, short = told(made, "seeds")
    assert one.startswith("One seed was asked for of flat on rte: ")
    assert short == "flat on sst2 stands on 1 of the 3 seeds asked for."


def test_selection_on_the_reported_split_is_flagged(planted):
    place = planted.cell("BERT", exactly(380, 400), n=400)
    figures = json.loads((place / "results.json").read_text())
    planted.cell("BERT", exactly(380, 400), n=400, train_key=figures["report_key"])
    (sentence,) = told(planted, "selection")
    assert "learned from the very rows that it reports on" in sentence


def test_a_choice_without_rows_held_back_is_flagged(planted):
    planted.cell("BERT", exactly(380, 400), n=400, n_select=0)
    planted.cell("flat", exactly(340, 400), n=400, n_select=0)  # chooses nothing
    (sentence,) = told(planted, "selection")
    assert "BERT on sst2, seed 0, had no rows held back" in sentence


def loaded(train, select, report):
    def rows(texts):
        return Rows(tuple((text,) for text in texts), np.zeros(len(texts), np.int64))

    task = Task("sst2", ("no", "yes"), ("no", "yes"), "", ("text",), rows(train), rows(select))
    return Loaded(task, rows(report), 1, 0, "a", "b")


def test_rows_that_choose_and_report_are_others():
    check_apart(loaded(["a", "b"], ["c"], ["d"]))
    with pytest.raises(DataError, match="1 texts of 'select' stand in 'report'"):
        check_apart(loaded(["a", "b"], ["d"], ["D "]))
    with pytest.raises(DataError, match="of 'train' stand in 'report'"):
        check_apart(loaded(["a", "d"], ["c"], ["d"]))
    with pytest.raises(DataError, match="of 'train' stand in 'select'"):
        check_apart(loaded(["a", "c"], ["c"], ["d"]))
    with pytest.raises(DataError, match="no row to report on"):
        check_apart(loaded(["a"], ["c"], []))


def test_a_model_below_majority_is_flagged(tmp_path):
    """59 rows, 36 of them "yes": the tuned model is right on 34."""
    made = Planted(tmp_path, ("Qwen LoRA", "majority"), seeds=(0,))
    true = np.array([1] * 36 + [0] * 23)
    made.cell("majority", np.ones(59, bool), true=true, answered=np.ones(59, int))
    made.cell("Qwen LoRA", exactly(34, 59), true=true)
    (sentence,) = told(made, "majority")
    assert "Qwen LoRA on sst2 is not shown to be above" in sentence
    assert "61.0 %" in sentence


def test_far_below_majority_is_said_so(tmp_path):
    made = Planted(tmp_path, ("Qwen LoRA",), seeds=(0,))
    true = np.array([1] * 300 + [0] * 100)
    made.cell("Qwen LoRA", exactly(200, 400), true=true)
    (sentence,) = told(made, "majority")
    assert "is below always saying" in sentence


def test_too_few_rows_to_rank_say_what_they_could_show(tmp_path):
    made = Planted(tmp_path, ("flat", "BERT", "setfit"), seeds=(0,))
    for name, right in (("flat", 40), ("BERT", 45), ("setfit", 42)):
        made.cell(name, exactly(right, 59), n=59)
    (sentence,) = told(made, "small_n")
    assert sentence.startswith("59 report rows of sst2 show a difference of ")
    points = float(sentence.split("difference of ")[1].split(" ")[0])
    assert 15 < points < 40
    assert sentence.endswith("they tell apart no two columns.")


def test_a_split_that_was_reported_on_before_is_counted(planted):
    key = read_matrix(planted.folder).results[0].figures["report_key"]
    assert told(planted, "reused") == []
    planted.use("an earlier one", key)
    planted.use("yet another", key)
    (sentence,) = told(planted, "reused")
    assert "reported on by 3 matrices" in sentence


def test_a_changing_denominator_is_flagged(planted):
    for seed in (0, 1, 2):
        planted.cell("BERT", exactly(340, 350), seed=seed, n=350)
    (sentence,) = told(planted, "denominator")
    assert "changing denominator" in sentence


def test_one_sided_answers_are_flagged(planted):
    for seed in (0, 1, 2):
        answered = np.where(np.arange(400) % 20 == 0, 0, 1)
        planted.cell("BERT", 0.0, seed=seed, n=400, answered=answered)
    (sentence,) = told(planted, "one_sided")
    assert "'yes' on 45 points more" in sentence
    assert "balance gap 0.90" in sentence


def test_unlike_measuring_and_devices_are_flagged(planted):
    batch = {"texts": 64, "batch_size": 8, "per_s": 300.0}
    planted.cell("BERT", exactly(380, 400), n=400, throughput_per_s=batch, device="cuda")
    (unequal,) = told(planted, "unequal")
    assert "64 in batches of 8: BERT" in unequal
    (devices,) = told(planted, "devices")
    assert "cuda: BERT" in devices


def test_unlike_machines_and_versions_are_flagged(planted):
    """A cell of before machines were told says nothing of its own."""
    rights = exactly(380, 400)
    planted.cell("flat", rights, n=400, machine="a card")
    planted.cell("BERT", rights, n=400, machine="another card", versions={"torch": "2.13"})
    planted.cell("BERT", rights, n=400, seed=1, versions={"python": "3.12"})
    (machines,) = told(planted, "devices")
    assert "of several machines" in machines
    assert "a card: flat; another card: BERT" in machines
    assert [one.partition(":")[0] for one in told(planted, "versions")] == [
        "sst2 ran with several python",
        "sst2 ran with several torch",
    ]


def test_that_a_model_without_an_answer_is_last_ranks_nothing(tmp_path):
    """Two columns that 60 rows cannot tell apart, and one that answers none of them."""
    made = Planted(tmp_path, ("flat", "BERT", "Qwen zero"))
    for seed in (0, 1, 2):
        made.cell("flat", exactly(48, 60), seed=seed, n=60)
        made.cell("BERT", exactly(50, 60), seed=seed, n=60)
        made.cell("Qwen zero", 0.0, seed=seed, n=60, unreadable=range(60))
    (sentence,) = told(made, "small_n")
    told_of = "they tell apart no two columns (majority, prior, stand-ins and columns mostly"
    assert told_of in sentence


def test_columns_that_say_the_same_are_one_model(planted):
    """And no difference of 0.0 points is said to be seen."""
    for seed in (0, 1, 2):
        planted.cell("flat", exactly(380, 400), seed=seed, n=400)
    assert told(planted, "same_answers") == [
        "flat and BERT gave the same answer to every row of sst2: here they are one model."
    ]
    assert told(planted, "small_n") == []
    planted.cell("flat", exactly(381, 400), seed=2, n=400)
    assert told(planted, "same_answers") == []


def test_seeds_that_draw_no_rows_are_said_to_be_alike(tmp_path):
    made = Planted(tmp_path, tasks={"sst2": {"path": "sst2"}})
    for seed in (0, 1, 2):
        made.cell("flat", exactly(340, 400), seed=seed, n=400)
    (sentence,) = told(made, "same_rows")
    assert sentence.startswith("Every seed of sst2 learns from all rows of train")
