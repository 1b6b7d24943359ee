"""What a sweep found: ranked, kept as a table, drawn, and turned into a configuration."""

from __future__ import annotations

import sys
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from red_ray.errors import RunError
from tune.folder import FINISHED, STOPPED, UNUSABLE, Record
from tune.plot import draw, write_plot
from tune.points import ALONE, Point
from tune.results import chosen_config, in_words, meets, pareto, rows_of, write_table

GOAL = "escalate_at_most 0.3"


def point(goal, escalated, accuracy, refused=""):
    return Point(goal, 0.4, escalated, 0.0, 1.0, 0.5, 0.9, accuracy, refused)


def record(name, *points, state=FINISHED, **facts):
    params = {"samples_per_class": 3, "partition.strategy": name}
    return Record(name, params, state, points, estimated_accuracy=0.8, **facts)


@pytest.fixture
def records():
    return [
        record("similar", point(ALONE, 0.0, 0.8), point(GOAL, 0.15, 0.9), calls=20),
        record("random", point(ALONE, 0.0, 0.7), point(GOAL, 0.25, 0.95), calls=10),
        record("dissimilar", point(ALONE, 0.0, 0.99), state=STOPPED, calls=5),
        record("auto", state=UNUSABLE, error="too few rows"),
    ]


def test_the_best_finished_row_is_chosen(sweep, records):
    rows = rows_of(sweep(), records, None)
    assert [row.chosen for row in rows] == [True] + [False] * 5
    assert (rows[0].record.id, rows[0].point.goal) == ("similar", GOAL)
    assert [row.counts for row in rows] == [True] * 4 + [False] * 2


def test_another_objective_chooses_another(sweep, records):
    rows = rows_of(sweep(objective={"accuracy_at_least": 0.93}), records, None)
    assert rows[0].record.id == "random"
    assert meets(rows[0])
    rows = rows_of(sweep(objective={"accuracy_at_least": 0.97}), records, None)
    assert rows[0].point.assumed_accuracy == 0.95  # nothing reaches it: the nearest
    assert not meets(rows[0])


def test_of_equals_the_one_that_asked_less_is_chosen(sweep):
    same = (point(ALONE, 0.0, 0.8),)
    rows = rows_of(sweep(), [record("a", *same, calls=9), record("b", *same, calls=8)], None)
    assert rows[0].record.id == "b"


def test_the_front_rises_and_nothing_lies_above_it(sweep, records):
    rows = rows_of(sweep(), records, None)
    front = [row.point for row in pareto([row for row in rows if row.counts])]
    assert [(one.escalated, one.assumed_accuracy) for one in front] == [
        (0.0, 0.8),
        (0.15, 0.9),
        (0.25, 0.95),
    ]
    assert sum(row.on_front for row in rows) == 3


def test_a_sweep_without_a_usable_setting_says_why(sweep, records):
    with pytest.raises(RunError, match="no setting of 1 could be used: too few rows"):
        rows_of(sweep(), records[3:], None)


def test_a_refused_goal_is_kept_and_never_chosen(sweep):
    better = point(GOAL, 0.0, 0.99, refused="needs at least 45 errors")
    rows = rows_of(sweep(), [record("similar", point(ALONE, 0.0, 0.8), better)], None)
    assert rows[0].point.goal == ALONE
    assert not rows[1].counts
    assert not rows[1].on_front


def test_the_chosen_configuration_carries_its_goal(sweep, records):
    config = chosen_config(sweep(), rows_of(sweep(), records, None)[0])
    assert config.router.goal.shares == {"escalate_at_most": 0.3}
    assert config.partition.strategy == "similar"
    alone = rows_of(sweep(objective={"escalated_at_most": 0.0}), records, None)[0]
    assert chosen_config(sweep(), alone).router.goal is None


def test_the_table_holds_every_setting_and_goal(sweep, records, tmp_path):
    path = tmp_path / "results.parquet"
    write_table(path, sweep(), rows_of(sweep(), records, 0.5))
    table = pq.read_table(path)
    found = table.to_pylist()
    assert len(found) == 6
    assert found[0]["partition.strategy"] == "similar"
    assert found[0]["chosen"]
    assert found[0]["cost_usd"] == 10.0
    assert {one["setting"]: one["state"] for one in found} == {one.id: one.state for one in records}
    assert [one["error"] for one in found if one["state"] == UNUSABLE] == ["too few rows"]
    assert b"estimates" in table.schema.metadata[b"red_ray.accuracy"]


def test_values_of_several_kinds_share_a_column(sweep, tmp_path):
    one = sweep(space={"noise.factor": [2, None], "seed": [1]})
    records = [
        Record(str(value), {"noise.factor": value, "seed": 1}, FINISHED, (point(ALONE, 0, 0.8),))
        for value in (2, None, "all")
    ]
    write_table(tmp_path / "t.parquet", one, rows_of(one, records, None))
    found = pq.read_table(tmp_path / "t.parquet")["noise.factor"].to_pylist()
    assert sorted(found, key=str) == ["2", None, "all"]


def test_words_name_what_varies(sweep):
    one = sweep(space={"noise.factor": [2.0, None], "router.gate": [True], "seed": [1, 2]})
    params = {"noise.factor": None, "router.gate": True, "seed": 2}
    assert in_words(params, one.varied) == "factor null, seed 2"


def texts(drawing):
    root = ElementTree.fromstring(drawing)
    return ["".join(one.itertext()) for one in root.iter() if one.tag.endswith("}text")]


def circles(drawing):
    root = ElementTree.fromstring(drawing)
    return [one for one in root.iter() if one.tag.endswith("}circle") and len(one)]


def test_the_drawing_holds_every_point_and_the_best_of_each_setting_by_its_calls(sweep, records):
    drawing = draw(sweep(), rows_of(sweep(), records, None))
    told = [one[0].text for one in circles(drawing)]
    assert len(told) == 4 + 2
    assert any(
        "strategy similar; escalate_at_most 0.3: 90.0% at 15.0% escalated" in t for t in told
    )
    words = texts(drawing)
    assert words.count("chosen") == 2
    assert "calls of the judge in training" in words
    assert any("assumed right 90" in one for one in words)


def test_without_a_judge_there_is_one_panel(sweep, records):
    from dataclasses import replace

    free = [replace(one, calls=0) for one in records]
    assert len(circles(draw(sweep(), rows_of(sweep(), free, None)))) == 4


def test_a_price_takes_the_place_of_the_calls(sweep, records):
    words = texts(draw(sweep(), rows_of(sweep(), records, 0.01)))
    assert "cost of the judge in training, USD" in words
    assert "calls of the judge in training" not in words


def test_what_a_file_says_is_escaped(sweep):
    one = sweep(space={"text_column": ["a", "b"]})
    params = {"text_column": "<b>&"}
    rows = rows_of(one, [Record("x", params, FINISHED, (point(ALONE, 0, 0.8),))], None)
    assert any("text_column <b>&" in said for said in texts(draw(one, rows)))


def test_the_picture_is_written(sweep, records, tmp_path):
    written = write_plot(tmp_path, sweep(), rows_of(sweep(), records, None))
    assert [path.name for path in written] == ["pareto.svg", "pareto.png"]
    assert written[1].read_bytes().startswith(b"\x89PNG")


def test_without_the_package_that_draws_it_the_picture_is_svg_alone(
    sweep, records, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    written = write_plot(tmp_path, sweep(), rows_of(sweep(), records, None))
    assert [path.name for path in written] == ["pareto.svg"]
