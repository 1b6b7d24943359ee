"""What a sweep's judge has cost, and what Tune's side says."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

from red_ray.config import load_config
from red_ray.judges import Ledger, make_judge
from red_ray.judges.ledger.entries import Sent
from tune.folder import Place
from tune.sweep import _usd_per_call

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINE, OTHER = "ollama:mine", "ollama:other"


def config(spec, ledger=None):
    return load_config(None, {"judge": {"spec": spec, "ledger": ledger}})


def name(spec):
    return make_judge(config(spec).judge, seed=0).name


def write(path, *requests):
    """Requests as (judge, its price)."""
    with closing(Ledger(str(path))) as ledger:
        ledger.write(
            [
                Sent(f"{number:032x}", "key", judge, "run/1", NOON, 10, cost_usd)
                for number, (judge, cost_usd) in enumerate(requests)
            ]
        )


def test_a_call_costs_what_the_sweeps_own_judge_costs(tmp_path):
    shared = tmp_path / "all.sqlite"
    write(shared, (name(MINE), 0.25), (name(MINE), 0.75), (name(OTHER), 9.0), ("else", None))
    assert _usd_per_call(Place(tmp_path), config(MINE, str(shared))) == 0.5
    assert _usd_per_call(Place(tmp_path), config(OTHER, str(shared))) == 9.0


def test_without_a_price_of_the_sweeps_judge_there_is_none(tmp_path):
    place = Place(tmp_path)
    assert _usd_per_call(place, config(MINE)) is None
    write(place.ledger, (name(MINE), None), (name(OTHER), 9.0))
    assert _usd_per_call(place, config(MINE)) is None
    assert _usd_per_call(place, config("simulated:0.9", str(place.ledger))) is None


def test_other_limits_of_a_request_are_another_round():
    """An answer that could not be read is not asked for again; with more room it may be."""
    from tune.tuning import run_of

    one = config(MINE).judge
    assert run_of(one) == run_of(config(MINE).judge)
    assert run_of(one) != run_of(one.model_copy(update={"max_answer_tokens": 999}))
