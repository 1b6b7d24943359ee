"""The desk: one judge and one ledger for all replicas, kept as long as somebody answers by them."""

from __future__ import annotations

import asyncio

import pytest

from red_ray.errors import ConfigError, DataError, OutputError, RunError, StorageError
from red_ray.judges import Ledger
from red_ray.judges.ledger import Review
from red_ray.run_folder import RunFolder
from serve import desk as desks
from serve.desk import Desk, Opening, open_here, truth_for
from serve.loaded import judged
from serve.rates import Rates
from serve.schemas import Feedback
from serve.settings import ServeSettings
from tests.unit.judges.fakes import FakeJudge, question
from tests.unit.serve.endpoints import Scripted, copy, first_candidate, hanging, opens, raising


def settings_of(run, spec="ollama:fake", **judge):
    return ServeSettings.model_validate({"run": str(run), "judge": {"spec": spec} | judge})


def opening_of(run, half, spec="neighbours", **changes):
    folder = RunFolder(run)
    config = judged(folder, settings_of(run, spec))
    config = config.model_copy(update={"judge": config.judge.model_copy(update=changes)})
    return Opening(str(run), config, folder, half, None)


class Opens:
    """Opens scripted validators, and counts."""

    def __init__(self, *made):
        self.made = list(made)
        self.openings = []

    async def __call__(self, opening):
        self.openings.append(opening)
        return self.made[len(self.openings) - 1]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def snapshot():
    return Rates("replica").snapshot()


REVIEW = Review("where is it", "escalated", (("family0_topic00", 0.4),))


# --- judges ------------------------------------------------------------------------------------


async def test_a_judge_is_opened_once_for_all_who_ask(served):
    opened = Opens(hanging())
    desk = Desk(settings_of(served), opened)
    names = await asyncio.gather(*(desk.open(str(served)) for _ in range(3)))
    assert names == ["scripted"] * 3
    assert len(opened.openings) == 1
    assert opened.openings[0].config.judge.spec == "ollama:fake"
    assert opened.openings[0].ledger == str(served / "ledger.sqlite")


async def test_a_judge_that_could_not_be_opened_is_tried_by_the_next_who_asks(served):
    tries = []

    async def at_first_not(opening):
        tries.append(opening)
        if len(tries) == 1:
            raise OutputError("another process asks the judge")
        return hanging()

    desk = Desk(settings_of(served), at_first_not)
    with pytest.raises(OutputError, match="another process"):
        await desk.open(str(served))
    assert await desk.open(str(served)) == "scripted"


async def test_two_runs_have_a_judge_each(served, tmp_path):
    other = copy(served, tmp_path / "other")
    opened = Opens(hanging(), hanging())
    desk = Desk(settings_of(served), opened)
    for run in (served, other):
        await desk.open(str(run))
    assert [opening.run.path for opening in opened.openings] == [served, other]


async def test_another_judge_in_the_same_run_takes_the_place_of_the_old(served, half):
    """A run that is trained anew in its place, with another judge."""
    old, new = hanging(), hanging()
    desk = Desk(settings_of(served, None), Opens(old, new))
    run = RunFolder(served)

    def write(spec):
        judge = half.config.judge.model_copy(update={"spec": spec})
        run.write_config(half.config.model_copy(update={"judge": judge}))

    write("ollama:one")
    await desk.open(str(served))
    await desk.open(str(served))
    assert not old.is_closed
    write("ollama:two")
    await desk.open(str(served))
    assert old.is_closed
    assert not new.is_closed


async def test_without_a_judge_there_is_none_to_open(served):
    with pytest.raises(ConfigError, match="has no judge"):
        await Desk(settings_of(served, "off"), Opens()).open(str(served))


async def test_a_run_that_is_none_is_told(tmp_path):
    with pytest.raises((ConfigError, DataError), match="nowhere"):
        await Desk(settings_of(tmp_path), Opens()).open(str(tmp_path / "nowhere"))


async def test_a_verdict_is_stored_and_costs_nothing_the_second_time(served):
    judge = FakeJudge(first_candidate)
    desk = Desk(settings_of(served), opens(judge))
    (first,) = await desk.validate(str(served), [question()])
    (again,) = await desk.validate(str(served), [question()])
    await desk.close()
    assert (first.requests, again.requests, again.cost_usd) == (1, 0, 0.0)
    assert first.label == again.label is not None
    assert len(judge.asked) == 1


# --- people ------------------------------------------------------------------------------------


async def test_feedback_is_in_the_ledger_and_takes_the_text_off_the_queue(served, half):
    desk = Desk(settings_of(served), Opens())
    run = str(served)
    await desk.report(run, snapshot(), [REVIEW])
    assert [item.text for item in (await desk.queue(run, 10)).items] == [REVIEW.text]
    said = [Feedback(text=REVIEW.text, label=half.labels[3])]
    assert await desk.feedback(run, said, half.labels) == 1
    assert await desk.feedback(run, said, half.labels) == 0
    assert (await desk.queue(run, 10)).items == []
    await desk.close()
    ledger = Ledger(served / "ledger.sqlite")
    assert [(one.text, one.label) for one in ledger.humans()] == [(REVIEW.text, half.labels[3])]
    ledger.close()


async def test_people_are_heard_where_the_run_has_another_ledger_by_now(served, half, tmp_path):
    """A run that is trained anew in its place, with its verdicts elsewhere."""
    desk = Desk(settings_of(served), Opens())
    said = [Feedback(text=REVIEW.text, label=half.labels[3])]
    assert await desk.feedback(str(served), said, half.labels) == 1
    other = str(tmp_path / "other.sqlite")
    judge = half.config.judge.model_copy(update={"ledger": other})
    RunFolder(served).write_config(half.config.model_copy(update={"judge": judge}))
    assert await desk.feedback(str(served), said, half.labels) == 1
    (served / "config.yaml").unlink()  # as between two runs
    assert await desk.feedback(str(served), said, half.labels) == 0
    await desk.close()
    for place in (served / "ledger.sqlite", other):
        ledger = Ledger(place)
        assert [one.text for one in ledger.humans()] == [REVIEW.text]
        ledger.close()


async def test_people_are_heard_while_a_judge_is_opened(served, half):
    gate = asyncio.Event()

    async def slowly(_):
        await gate.wait()
        return hanging()

    desk = Desk(settings_of(served), slowly)
    run = str(served)
    opening = asyncio.create_task(desk.open(run))
    said = [Feedback(text="a", label=half.labels[0])]
    assert await desk.feedback(run, said, half.labels) == 1
    assert (await desk.report(run, snapshot(), [REVIEW])).notice == ""
    assert (await desk.queue(run, 10)).n_open == 1
    assert not opening.done()
    gate.set()
    assert await opening == "scripted"
    await desk.close()


async def test_where_the_ledger_cannot_be_opened_that_is_told(served, half):
    (served / "ledger.sqlite").mkdir()
    desk = Desk(settings_of(served), Opens())
    with pytest.raises((OutputError, StorageError), match=r"ledger\.sqlite"):
        await desk.feedback(str(served), [Feedback(text="a", label=None)], half.labels)


async def test_what_people_say_of_a_run_at_an_address_is_kept_in_no_copy_of_it(
    served, half, tmp_path, monkeypatch
):
    """Copies go with the next bundle, and with the machine."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run = f"file://{served}"
    desk = Desk(settings_of(run), open_here)
    with pytest.raises(ConfigError, match="needs a database"):
        await desk.feedback(run, [Feedback(text="a", label=half.labels[0])], half.labels)
    with pytest.raises(ConfigError, match="needs a database"):
        await desk.report(run, snapshot(), [REVIEW])
    with pytest.raises(ConfigError, match="needs a database"):
        await desk.open(run)
    assert not list((tmp_path / "home").rglob("ledger.sqlite*"))


# --- reports -----------------------------------------------------------------------------------


async def test_a_replica_is_told_why_the_judge_is_paused(served):
    judge = hanging()
    desk = Desk(settings_of(served), Opens(judge))
    judge.notice = "away"
    assert (await desk.report(str(served), snapshot(), [])).notice == "", "it was not opened"
    await desk.open(str(served))
    assert (await desk.report(str(served), snapshot(), [])).notice == "away"
    assert (await desk.stats(str(served), None)).judge["notice"] == "away"


async def test_what_replicas_did_adds_up(served):
    desk = Desk(settings_of(served), Opens())
    for name in ("one", "two"):
        rates = Rates(name)
        rates.error()
        for _ in range(2):
            await desk.report(str(served), rates.snapshot(), [])
    stats = await desk.stats(str(served), None)
    assert (stats.replicas, stats.requests, stats.errors) == (2, 2, 2)


# --- the end -----------------------------------------------------------------------------------


async def test_a_run_that_nobody_answers_from_any_more_is_let_go(served, tmp_path):
    """The link was moved: its judge and its lease are free for others."""
    other, clock = copy(served, tmp_path / "other"), Clock()
    old, new = hanging(), hanging()
    desk = Desk(settings_of(served), Opens(old, new), clock=clock)
    await desk.open(str(served))
    await desk.report(str(served), snapshot(), [REVIEW])
    _, ledger = desk._ledgers[str(served)]
    await desk.open(str(other))
    for clock.now in (desks.IDLE_S / 2, desks.IDLE_S):
        await desk.report(str(other), snapshot(), [])
        assert not old.is_closed
    clock.now = desks.IDLE_S + 1
    await desk.report(str(other), snapshot(), [])
    assert old.is_closed
    assert desk._ledgers == {}
    assert ledger is not None
    assert not new.is_closed
    await desk.close()
    assert new.is_closed


async def test_a_run_that_is_reported_of_is_kept(served):
    clock, judge = Clock(), hanging()
    desk = Desk(settings_of(served), Opens(judge), clock=clock)
    await desk.open(str(served))
    for clock.now in (600.0, 1200.0, 1800.0):
        await desk.report(str(served), snapshot(), [])
    assert not judge.is_closed


async def test_closing_closes_every_judge(served, tmp_path):
    other = copy(served, tmp_path / "other")
    judges = hanging(), raising(RunError("x"))
    desk = Desk(settings_of(served), Opens(*judges))
    for run in (served, other):
        await desk.open(str(run))
        await desk.queue(str(run), 1)
    await desk.close()
    assert [judge.is_closed for judge in judges] == [True, True]
    assert desk._ledgers == {}


# --- a judge in this process -------------------------------------------------------------------


async def test_a_judge_of_this_process_answers_and_gives_its_lease_back(served, half, sorts):
    validator = await open_here(opening_of(served, half))
    asked = question(sorts.doubtful[0], half.labels[:3])
    (verdict,) = await validator.validate([asked], 1)
    assert verdict.judge == "neighbours"
    assert (await validator.stats()).requests == 1
    await validator.close()
    assert leases() == {}


async def test_what_cannot_be_opened_leaves_no_lease_behind(served, half, monkeypatch):
    """Else no other process could ask the judge."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    spec = "openai:m@http://127.0.0.1:9/v1"
    with pytest.raises(ConfigError, match="price"):
        await open_here(opening_of(served, half, spec, budget_usd=1.0))
    assert leases() == {}


async def test_a_lease_of_another_process_is_told(served, half, monkeypatch):
    monkeypatch.setattr("red_ray.judges.ledger.store.leases.lease_file", lambda *_: None)
    with pytest.raises(OutputError, match="another process asks the judge 'neighbours'"):
        await open_here(opening_of(served, half))


def leases():
    from red_ray.judges.ledger import lease

    return lease._FILES


# --- the truth of a simulated judge ------------------------------------------------------------


def test_a_simulated_judge_needs_the_truth_and_says_how(served, half):
    settings = settings_of(served, "simulated:0.9")
    with pytest.raises(ConfigError, match=r"simulated:0\.9.*judge\.truth"):
        truth_for(judged(RunFolder(served), settings), half, settings)


def test_the_truth_is_read_for_a_simulated_judge_alone(served, half, tmp_path):
    table = tmp_path / "truth.csv"
    table.write_text("text,label\nwhere is it,family0_topic00\n")
    for spec, is_read in (("simulated:0.9", True), ("neighbours", False)):
        settings = settings_of(served, spec, truth=str(table))
        found = truth_for(judged(RunFolder(served), settings), half, settings)
        assert (found is not None) is is_read


async def test_a_broken_validator_breaks_nobody_else(served, half):
    async def fail(_):
        raise StorageError("the disk is full")

    desk = Desk(settings_of(served), Opens(Scripted(fail)))
    with pytest.raises(StorageError, match="full"):
        await desk.validate(str(served), [question()])
    said = [Feedback(text="a", label=half.labels[0])]
    assert await desk.feedback(str(served), said, half.labels) == 1
    await desk.close()
