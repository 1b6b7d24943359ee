"""What a matrix would take: pairs, cells, sizes, time and price, before anything runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmarks.matrix.config import MatrixConfig, load_matrix
from benchmarks.matrix.plan import CARD, CPU, KNOWN, Rates, plan, render, size_of_model

TASK = {
    "hub": "nyu-mll/glue:sst2",
    "train": "train",
    "report": "validation",
    "text": ["sentence"],
    "labels": ["negative", "positive"],
}
BERT = {"name": "BERT", "method": "fine_tune", "model": "bert-base-uncased", "epochs": 1}


def _plan(*columns, task=None, **settings):
    config = {"name": "m", "tasks": {"t": task or TASK}, "columns": columns, **settings}
    return plan(MatrixConfig.model_validate(config))


def _shown(table):
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()


def test_the_shipped_matrix_has_thirty_pairs_and_prices_itself():
    config = load_matrix("seed30")
    found = plan(config.model_copy(update={"usd_per_hour": 2.0}))
    assert (len(found.pairs), found.n_cells) == (30, 90)
    assert all(pair.n_parameters and pair.cpu_s > 0 and pair.gpu_s > 0 for pair in found.pairs)
    assert found.not_estimated == ()
    assert found.total_usd == pytest.approx(2.0 * found.gpu_s / 3600)  # all ask for a card
    assert found.cpu_s > 50 * found.gpu_s


def test_time_follows_the_rule():
    """6 FLOPs a parameter and token of training, 2 of prediction, and one read of the weights."""
    pair = _plan(BERT, task={**TASK, "n_train": 1000}, seeds=[0]).pairs[0]
    n, tokens, n_predicted = KNOWN["bert-base-uncased"], 53 / 4.5, 872 + 50
    flops = n * tokens * (6 * 800 + 2 * 200 + 2 * n_predicted)
    assert pair.cpu_s == pytest.approx(flops / CPU.flops + 4 * n / 1e9)
    assert pair.gpu_s == pytest.approx(800 / 16 * CARD.step_s + 4 * n / 1e9)  # bound by its steps
    assert pair.gb == pytest.approx(4 * n / 1e9)


def test_more_work_takes_longer():
    zero = {"name": "q", "method": "zero_shot", "model": "Qwen/Qwen2-0.5B"}
    few = {**zero, "name": "five", "method": "few_shot", "shots": 5}
    twice = {**BERT, "name": "twice", "epochs": 2}
    once_s, twice_s, zero_s, few_s = (pair.cpu_s for pair in _plan(BERT, twice, zero, few).pairs)
    fewer_rows_s = _plan(BERT, task={**TASK, "n_train": 1000}).pairs[0].cpu_s
    assert twice_s > 1.9 * once_s > 1.9 * fewer_rows_s
    assert few_s > 1.2 * zero_s
    faster = Rates(2 * CPU.flops, CPU.bytes_per_s, CPU.step_s, CPU.weight_bytes)
    config = MatrixConfig.model_validate({"name": "m", "tasks": {"t": TASK}, "columns": [BERT]})
    assert plan(config, cpu=faster).cpu_s < plan(config).cpu_s


def test_seeds_and_tasks_of_a_column_count_its_cells():
    found = _plan(BERT, {**BERT, "name": "once", "seeds": [7]})
    assert [pair.n_cells for pair in found.pairs] == [3, 1]
    assert found.cpu_s == pytest.approx(4 * found.pairs[0].cpu_s)


def test_what_is_not_known_is_said_and_in_no_sum():
    strange = {**BERT, "name": "strange", "model": "nobody/unheard-of"}
    found = _plan(BERT, strange, {"name": "red", "method": "red_ray", "mode": "accuracy"})
    assert [pair.why for pair in found.pairs] == ["", "size unknown", "not estimated"]
    assert found.cpu_s == pytest.approx(3 * found.pairs[0].cpu_s)
    shown = _shown(render(found))
    assert "Not estimated, and in no sum: red on t, strange on t" in shown
    elsewhere = _plan(BERT, task={"hub": "nobody/data", "text": ["text"]})
    assert elsewhere.pairs[0].why == "rows unknown"


def test_a_judge_is_counted_in_calls_and_a_constant_costs_nothing():
    found = _plan(
        {"name": "judge", "method": "judge", "judge": "neighbours"},
        {"name": "majority", "method": "majority"},
        usd_per_hour=1.0,
    )
    assert found.n_calls == 3 * (872 + 5 + 50 + 32)  # with those that are warmed with and timed
    assert [pair.cpu_s for pair in found.pairs] == [None, 0.0]
    assert found.total_usd == 0.0
    assert "2,877 calls" in _shown(render(found))


def test_the_table_calls_itself_an_estimate_and_counts_its_cells():
    shown = _shown(render(_plan(BERT, usd_per_hour=1.5)))
    assert "1 pairs of column and task, 3 cells" in shown
    assert "An estimate" in shown
    assert "109.5 M" in shown
    assert "Price of the machine" in shown


def test_rows_of_a_local_task_are_counted(tmp_path, monkeypatch):
    for name, n in (("train.csv", 20), ("test.csv", 8)):
        lines = [f"{name} {at} {'x' * 20},{'ab'[at % 2]}" for at in range(n)]
        (tmp_path / name).write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    judge = {"name": "judge", "method": "judge", "judge": "neighbours"}
    found = _plan(judge, BERT, task={"path": str(tmp_path)})
    assert found.pairs[0].calls == 8 + 20
    assert found.pairs[1].cpu_s > 0


def test_a_local_model_is_counted_by_its_files(tmp_path):
    import torch
    from safetensors.torch import save_file

    for name, shape in (("one", (3, 5)), ("two", (7,))):
        save_file({name: torch.zeros(shape)}, tmp_path / f"{name}.safetensors")
    assert size_of_model(str(tmp_path)) == 22
    assert size_of_model("Qwen/Qwen2-0.5B-Instruct") == 494_032_768
    assert size_of_model("nobody/unheard-of") is None
