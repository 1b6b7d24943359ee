"""A setting in its process: looked-up embeddings, records, and nothing run twice."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from red_ray.config import load_config
from red_ray.core.thresholds import derive
from red_ray.data.inputs import draw_samples
from red_ray.errors import JudgeUnavailable, RunError
from red_ray.training import LocalFleet, Trainer
from tests.unit.training.fakes import FakeEncoder, FakeValidator
from tune.folder import FAILED, FINISHED, RUNNING, UNUSABLE
from tune.space import known_settings, setting_of
from tune.trial import KnownTexts, job_of, run_setting

SIMULATED = {"judge": {"spec": "simulated:0.9", "gold_share": 0.0}}


def unheard(record):
    raise AssertionError("a setting without a loop has nothing to tell before its end")


def test_a_setting_comes_to_what_training_it_comes_to(sweep, shared):
    one = sweep()
    setting = known_settings(one)[0]
    record = run_setting(setting, shared(one), unheard)
    job = job_of(draw_samples(setting.config, shared(one).inputs), setting.config)
    trained = asyncio.run(_trained(job))
    assert record.state == FINISHED
    assert record.estimated_accuracy == trained.estimate.accuracy
    assert record.n_train == 3 * 12
    threshold = derive(trained.model.calibration, {"escalate_at_most": 0.3}, 0.9, 0.5).escalate
    assert record.points[1].threshold == threshold


async def _trained(job):
    fleet = LocalFleet(FakeEncoder(), n_threads=1)
    trainer = Trainer(job, fleet)
    async for _ in trainer.run():
        pass
    fleet.close()
    return trainer.result()


def test_a_setting_that_has_ended_is_not_run_again(sweep, shared):
    one = sweep()
    setting, all_shared = known_settings(one)[0], shared(one)
    first = run_setting(setting, all_shared, unheard)
    without_rows = replace(all_shared, texts=(), vectors=all_shared.vectors[:0])
    assert run_setting(setting, without_rows, unheard) == first


def test_a_setting_that_is_drawn_twice_is_trained_once(sweep, shared):
    one = sweep()
    setting, all_shared = known_settings(one)[0], shared(one)
    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(run_setting, setting, all_shared, unheard) for _ in range(2)]
    first, second = (run.result() for run in runs)
    assert first == second  # its seconds too: the second is the first's record


def test_one_that_was_in_flight_is_run_again(sweep, shared):
    one = sweep()
    setting, all_shared = known_settings(one)[0], shared(one)
    first = run_setting(setting, all_shared, unheard)
    all_shared.place.write(first.with_state(RUNNING))
    again = run_setting(setting, all_shared, unheard)
    assert replace(again, seconds=first.seconds) == first


def test_a_text_that_was_not_encoded_is_an_error(sweep, shared):
    one = sweep()
    setting, all_shared = known_settings(one)[0], shared(one)
    fewer = replace(all_shared, texts=all_shared.texts[1:], vectors=all_shared.vectors[1:])
    with pytest.raises(RunError, match="not encoded before the sweep"):
        run_setting(setting, fewer, unheard)
    kept = fewer.place.read(setting.id)
    assert kept.state == FAILED
    assert not kept.has_ended


def test_known_texts_are_looked_up_in_any_order():
    vectors = FakeEncoder().encode(["a", "b", "c"])
    found = KnownTexts(("a", "b", "c"), vectors, None).encode(["c", "a", "c"])
    assert (found == vectors[[2, 0, 2]]).all()


def test_with_a_judge_every_round_is_told_and_counted(sweep, shared):
    one = sweep(config=SIMULATED, space={"loop.acquisition": ["margin"]})
    setting, all_shared = known_settings(one)[0], shared(one)
    told = []
    record = run_setting(setting, all_shared, told.append)
    assert [step.rounds for step in told] == [0, 1, 2, 3]
    assert [step.calls for step in told] == [0, 12, 24, 36]
    assert told[-1].points  # of the last calibration: a scheduler can compare them
    assert (record.rounds, record.calls) == (3, 36)
    assert record.n_train > 60
    assert all_shared.place.own_ledger(setting.id).exists()


def test_what_stops_a_setting_from_outside_leaves_it_running(sweep, shared):
    """As Tune does where a scheduler says so: it ends the thread within the report."""
    one = sweep(config=SIMULATED, space={"loop.acquisition": ["margin"]})
    setting, all_shared = known_settings(one)[0], shared(one)

    def stop(record):
        if record.rounds == 1:
            raise SystemExit

    with pytest.raises(SystemExit):
        run_setting(setting, all_shared, stop)
    kept = all_shared.place.read(setting.id)
    assert (kept.state, kept.rounds, kept.calls) == (RUNNING, 1, 12)


def test_a_judge_that_goes_away_fails_a_setting_for_another_try(sweep, shared):
    one = sweep(config={"judge": {"spec": "ollama:none"}}, space={"loop.acquisition": ["margin"]})

    def away(question):
        raise JudgeUnavailable("nobody is at home")

    @asynccontextmanager
    async def asking():
        yield FakeValidator(away)

    setting = known_settings(one)[0]
    all_shared = replace(shared(one), asking=asking)
    with pytest.raises(JudgeUnavailable):
        run_setting(setting, all_shared, lambda record: None)
    kept = all_shared.place.read(setting.id)
    assert (kept.state, kept.error) == (FAILED, "nobody is at home")


def test_a_setting_that_cannot_be_used_says_why_and_ends(sweep, shared):
    one = sweep(space={"samples_per_class": [1, 5]})
    setting, all_shared = known_settings(one)[0], shared(one)
    record = run_setting(setting, all_shared, unheard)
    assert record.state == UNUSABLE
    assert "no label has two rows" in record.error
    assert record.has_ended


def test_settings_differ_only_in_what_their_config_says(sweep):
    setting = setting_of(sweep(), {"noise.factor": 2.0})
    other = load_config(None, dict(sweep().config))
    assert setting.config.noise.factor == 2.0
    assert setting.config.model_copy(update={"noise": other.noise}) == other
