"""What a change of labels prints of the other labels, and of the new one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from red_ray.cli.console import Output
from red_ray.cli.show_label import change_facts, print_change
from red_ray.labels import Change, Effect, LabelEffect

MODEL = SimpleNamespace(bundle_id="ab" * 32, promise=None, labels=("a", "b"))


def of(label, n_lost, n_gained, **more):
    after = min(1.0, 0.9 - (n_lost - n_gained) / 15)
    return LabelEffect(label, 15, 0.9, after, n_lost, n_gained, **more)


@pytest.fixture
def change():
    own = LabelEffect("new", 5, None, 0.8, 0, 0, is_altered=True)
    rows = (of("few", 1, 0), of("lost", 6, 0), of("same", 1, 1), of("both", 0, 2, is_altered=True))
    effect = Effect("rows", 45, 0.9, 0.73, 8, 1, rows, own=(own,), unknown=("judged",))
    return Change(MODEL, None, ("expert-01",), True, None, effect, ())


@pytest.fixture
def printed(change, capsys):
    print_change(Output(as_json=False), "run", "add 'new'", MODEL, change)
    return capsys.readouterr().out.splitlines()


def test_rows_lost_stand_beside_a_label_and_chance_is_not_called_worse(printed):
    assert "worse: lost (6 of 15 rows)" in printed
    assert "lost rows, but no more than chance may do: few (1 of 15 rows)" in printed
    assert (
        "the other labels: 90.0% right before, 73.0% after (45 calibration rows; 8 lost, 1 gained)"
    ) in printed


def test_what_is_known_of_a_new_label_is_said_with_its_kind(printed):
    assert (
        "new: no calibration row has it; 4 of 5 of its own examples right, cross-fitted: an "
        "estimate"
    ) in printed
    assert "judged: nothing is known of how well it does: no row that you labelled tells" in printed


def test_a_merged_label_stands_first_with_its_before(printed):
    rows = [line.split() for line in printed if line.split()[1:2] == ["15"]]
    assert [row[0] for row in rows] == ["both", "lost", "few"]
    assert rows[0] == ["both", "15", "90%", "100%"]


def test_the_json_tells_both(change):
    facts = change_facts("run", "add 'new'", MODEL, change)
    assert (facts["regressions"], facts["beyond_chance"]) == (["lost", "few"], ["lost"])
    assert facts["effect"]["own"][0]["label"] == "new"
    assert facts["effect"]["unknown"] == ("judged",)
