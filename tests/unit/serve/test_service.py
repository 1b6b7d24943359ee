"""A bundle that is taken over under way, what people say, and what is counted."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from red_ray.bundle import load_bundle
from red_ray.errors import DataError, JudgeUnavailable, RunError, StorageError
from red_ray.evaluation.disputes import write_disputes
from red_ray.judges import Ledger
from red_ray.run_folder import DISPUTED
from red_ray.training.job import Dispute
from serve import service as services
from serve.desk import Desk
from serve.loaded import load
from serve.scoring import PackedScorer
from serve.service import Service
from serve.settings import parse_settings
from tests.unit.judges.fakes import FakeJudge
from tests.unit.serve.endpoints import (
    SPEC,
    copy,
    first_candidate,
    held_judge,
    open_endpoint,
    opens,
    opens_one,
    raising,
    refuses_to_open,
    until,
    with_escalation_from,
    write_anew,
    write_run_of,
)

QUICK = {"watch_s": 0.01, "judge": {"spec": "off"}}
NEVER, EVERY = 2.0, 0.0
"""Thresholds: no text is escalated, and all are."""


def answers(endpoint, bundle):
    return lambda: endpoint.service.bundle == bundle


def point(link, run):
    """Move a link in one step."""
    new = link.with_name("new")
    new.symlink_to(run)
    new.replace(link)


async def failed_update(endpoint):
    return (await endpoint.get("/v1/model"))["failed_update"]


@pytest.fixture
def surer(half):
    """Another bundle: it escalates nothing."""
    return with_escalation_from(half, NEVER)


# --- another bundle ----------------------------------------------------------------------------


async def test_a_link_that_moves_is_followed(served, surer, encoders, sorts, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(served)
    other = write_run_of(surer, tmp_path / "other")
    async with open_endpoint(link, **QUICK) as endpoint:
        first = await endpoint.answer(sorts.doubtful[:1])
        point(link, other)
        await until(lambda: endpoint.service.bundle != first["bundle"])
        second = await endpoint.answer(sorts.doubtful[:1])
        info = await endpoint.get("/v1/model")
        assert (await endpoint.get("/readyz"))["bundle"] == second["bundle"]
    assert second["bundle"] == load_bundle(other / "bundle").bundle_id == info["bundle"]
    assert info["run"] == str(other)
    assert info["thresholds"]["escalate"] == NEVER
    decided = [answer["results"][0]["decision"] for answer in (first, second)]
    assert decided[0] == "escalate" != decided[1]
    assert len(encoders) == 1, "the encoder is the same"


async def test_a_bundle_that_is_replaced_in_its_place_is_taken_over(served, surer, sorts):
    async with open_endpoint(served, **QUICK) as endpoint:
        other = write_anew(surer, served)
        await until(answers(endpoint, other))
        (result,) = await endpoint.classify(sorts.doubtful[:1])
        assert result["decision"] != "escalate"
        assert await failed_update(endpoint) is None


async def test_no_call_fails_while_bundles_are_swapped(served, half, surer, sorts):
    """And each answer is what the bundle that it names says."""
    texts = sorts.doubtful[:2]
    ids, found = {}, []

    async def call(endpoint, stop):
        while not stop.is_set():
            found.append(await endpoint.answer(texts))

    async with open_endpoint(served, **QUICK) as endpoint:
        ids[endpoint.service.bundle] = "escalate"
        stop = asyncio.Event()
        calls = [asyncio.create_task(call(endpoint, stop)) for _ in range(3)]
        for model in (surer, half, surer):
            bundle = write_anew(model, served)
            ids[bundle] = "accept" if model is surer else "escalate"
            await until(answers(endpoint, bundle))
            await endpoint.answer(texts)
        stop.set()
        await asyncio.gather(*calls)
    assert {answer["bundle"] for answer in found} <= set(ids)
    for answer in found:
        kinds = {result["decision"] for result in answer["results"]}
        is_escalated = ids[answer["bundle"]] == "escalate"
        assert (kinds == {"escalate"}) is is_escalated


async def test_a_call_under_way_ends_on_the_bundle_that_it_began_with(served, surer, sorts):
    judge = held_judge()
    async with open_endpoint(served, opens(judge), watch_s=0.01) as endpoint:
        old = endpoint.service.bundle
        call = asyncio.create_task(endpoint.answer(sorts.doubtful[:1], explain=True))
        await until(lambda: bool(judge.asked))
        await until(answers(endpoint, write_anew(surer, served)))
        assert not call.done()
        judge.gate.set()
        answer = await call
    assert answer["bundle"] == old
    (result,) = answer["results"]
    assert result["source"] == "judge"
    assert result["explanation"]["thresholds"]["escalate"] < NEVER


async def test_a_swap_while_texts_are_encoded_changes_nothing_about_the_call(served, half, sorts):
    """Its question holds what the bundle that it began with knows of the labels."""
    gate, begun = asyncio.Event(), asyncio.Event()

    class Slow(PackedScorer):
        async def score(self, loaded, texts):
            begun.set()
            await gate.wait()
            return await super().score(loaded, texts)

    other = dataclasses.replace(half, descriptions=("another",) * len(half.labels))
    judge = FakeJudge(first_candidate)
    with ThreadPoolExecutor(1) as thread:
        scorer = Slow(thread)
        async with open_endpoint(served, opens(judge), scorer=scorer, watch_s=0.01) as endpoint:
            old = endpoint.service.bundle
            call = asyncio.create_task(endpoint.answer(sorts.doubtful[:1], explain=True))
            await begun.wait()
            await until(answers(endpoint, write_anew(other, served)))
            gate.set()
            answer = await call
    assert answer["bundle"] == old
    candidates = answer["results"][0]["explanation"]["judge"]["candidates"]
    assert [one["description"] for one in candidates] == [
        f"about {one['label']}" for one in candidates
    ]


async def test_a_damaged_bundle_is_refused_and_told_until_a_good_one_comes(
    served, surer, corpus, tmp_path
):
    link, bad = tmp_path / "current", write_run_of(surer, tmp_path / "bad")
    link.symlink_to(served)
    examples = bad / "bundle" / "examples.json"
    examples.write_text(examples.read_text() + " ")
    good = write_run_of(surer, tmp_path / "good")
    async with open_endpoint(link, **QUICK) as endpoint:
        before = endpoint.service.bundle
        point(link, bad)
        await until(lambda: endpoint.service.about().failed_update is not None)
        told = await failed_update(endpoint)
        assert "damaged" in told
        assert "examples.json" in told
        assert (await endpoint.answer(corpus.test[:2]))["bundle"] == before
        point(link, good)
        await until(lambda: endpoint.service.bundle != before)
        assert await failed_update(endpoint) is None


async def test_nothing_is_told_any_more_once_the_link_is_put_back(served, surer, tmp_path):
    link, bad = tmp_path / "current", write_run_of(surer, tmp_path / "bad")
    link.symlink_to(served)
    shutil.rmtree(bad / "bundle" / "experts")
    async with open_endpoint(link, **QUICK) as endpoint:
        before = endpoint.service.bundle
        point(link, bad)
        await until(lambda: endpoint.service.about().failed_update is not None)
        point(link, served)
        await until(lambda: endpoint.service.about().failed_update is None)
        assert endpoint.service.bundle == before


async def test_a_bundle_that_is_copied_piece_by_piece_is_taken_over_when_it_is_whole(
    served, surer, tmp_path
):
    """The manifest first: nothing but other files tells that it changed."""
    other = write_run_of(surer, tmp_path / "other")
    whole, target = other / "bundle", tmp_path / "target"
    target.mkdir()
    shutil.copy(served / "config.yaml", target)
    shutil.copytree(served / "bundle", target / "bundle")
    async with open_endpoint(target, **QUICK) as endpoint:
        before = endpoint.service.bundle
        shutil.rmtree(target / "bundle")
        (target / "bundle" / "experts").mkdir(parents=True)
        names = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
        names.sort(key=lambda name: name.name != "manifest.json")
        for name in names[:-1]:
            shutil.copy(whole / name, target / "bundle" / name)
        await until(lambda: endpoint.service.about().failed_update is not None)
        assert endpoint.service.bundle == before
        shutil.copy(whole / names[-1], target / "bundle" / names[-1])
        await until(answers(endpoint, load_bundle(whole).bundle_id))
        assert await failed_update(endpoint) is None


async def test_where_there_is_no_bundle_for_a_while_the_old_one_answers(served, surer, corpus):
    async with open_endpoint(served, **QUICK) as endpoint:
        before = endpoint.service.bundle
        (served / "bundle").rename(served / "aside")
        await asyncio.sleep(0.05)
        assert (await endpoint.answer(corpus.test[:2]))["bundle"] == before
        await until(answers(endpoint, write_anew(surer, served)))


async def test_a_bundle_that_was_refused_is_not_read_again_and_again_but_some_day(
    served, surer, monkeypatch
):
    """What was in its way may be gone, though nothing about the bundle changed."""
    monkeypatch.setattr(services, "RETRY_S", 1000.0)
    tries, is_away = [], True

    def loads(run, settings, before):
        tries.append(run)
        if before is not None and is_away:
            raise RunError("a shard is away")
        return load(run, settings, before)

    settings = parse_settings({"run": str(served), "watch_s": 0.005, "judge": {"spec": "off"}})
    desk = Desk(settings, refuses_to_open)
    with ThreadPoolExecutor(1) as thread:
        service = Service(settings, desk, thread, loads=loads)
        async with service.opened():
            other = write_anew(surer, served)
            await until(lambda: service.about().failed_update == "a shard is away")
            await asyncio.sleep(0.1)
            assert len(tries) == 2
            is_away = False
            monkeypatch.setattr(services, "RETRY_S", 0.0)
            await until(lambda: service.bundle == other)
            assert service.about().failed_update is None
    await desk.close()


async def test_a_first_bundle_that_cannot_answer_ends_it(served):
    (served / "bundle" / "examples.json").unlink()
    with pytest.raises(Exception, match=r"examples\.json"):
        async with open_endpoint(served):
            pytest.fail("it must not open")


async def test_a_scorer_is_warm_before_a_bundle_answers(served, surer):
    """A shard that has not read the bundle would fail the first calls."""
    warmed = []

    class Warmed(PackedScorer):
        async def warm(self, loaded):
            warmed.append((loaded.model.bundle_id, service.is_ready and service.bundle))

    settings = parse_settings({"run": str(served), **QUICK})
    desk = Desk(settings, refuses_to_open)
    with ThreadPoolExecutor(1) as thread:
        service = Service(settings, desk, thread, Warmed(thread))
        async with service.opened():
            first = service.bundle
            second = write_anew(surer, served)
            await until(lambda: service.bundle == second)
    await desk.close()
    assert warmed == [(first, False), (second, first)]


async def test_it_follows_another_run(served, surer, tmp_path):
    other = write_run_of(surer, tmp_path / "other")
    async with open_endpoint(served, **QUICK) as endpoint:
        before = endpoint.service.bundle
        await endpoint.service.follow(str(other))
        assert endpoint.service.bundle != before
        os.utime(served / "bundle" / "manifest.json")  # what it looked at before is nothing to it
        await asyncio.sleep(0.05)
        assert endpoint.service.about().run == str(other)


async def test_a_run_that_cannot_be_followed_is_told_and_the_old_one_answers(
    served, surer, tmp_path
):
    async with open_endpoint(served, **QUICK) as endpoint:
        before = endpoint.service.bundle
        await endpoint.service.follow(str(tmp_path / "later"))
        assert endpoint.service.bundle == before
        assert "no finished run" in await failed_update(endpoint)
        write_run_of(surer, tmp_path / "later")
        await until(lambda: endpoint.service.bundle != before)
        assert await failed_update(endpoint) is None


async def test_without_any_run_there_is_nothing_to_follow_from(served, tmp_path):
    settings = parse_settings({"run": str(served)})
    with ThreadPoolExecutor(1) as thread:
        service = Service(settings, Desk(settings, refuses_to_open), thread)
        with pytest.raises(DataError, match="no finished run"):
            await service.follow(str(tmp_path / "nowhere"))
        assert not service.is_ready


# --- people ------------------------------------------------------------------------------------


async def test_feedback_is_kept_once_and_names_the_bundle(served, half):
    body = {"answers": [{"text": "a", "label": half.labels[0]}, {"text": "b", "label": None}]}
    async with open_endpoint(served) as endpoint:
        first = (await endpoint.post("/v1/feedback", body)).json()
        again = (await endpoint.post("/v1/feedback", body)).json()
    assert first == {"kept": 2, "bundle": endpoint.service.bundle}
    assert again["kept"] == 0
    ledger = Ledger(served / "ledger.sqlite")
    humans = {(one.text, one.label) for one in ledger.humans()}
    ledger.close()
    assert humans == {("a", half.labels[0]), ("b", None)}


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([{"text": "a", "label": "family0topic00"}], ("did you mean 'family0_topic00'?",)),
        ([{"text": "a", "label": ""}], ("no label ''", "null says that none fits")),
        ([{"text": " ", "label": None}], ("answers[0] has an empty text",)),
        ([{"text": "", "label": None}], ("answers.0.text",)),
        ([{"text": "a"}], ("answers.0.label", "required")),
        ([], ("answers", "at least 1")),
        ([{"text": "a", "label": None}] * 257, ("answers", "256", "257")),
        ([{"text": "a" * 101, "label": None}], ("answers[0].text has 101", "at most 100")),
    ],
)
async def test_feedback_that_cannot_be_used_is_refused_whole(served, answers, words):
    body = {"answers": [*answers[:0], *answers]}
    async with open_endpoint(served, limits={"chars_per_text": 100}) as endpoint:
        answer = await endpoint.post("/v1/feedback", body)
    assert answer.status_code == 422
    for word in words:
        assert word in answer.json()["detail"]


async def test_one_bad_answer_keeps_the_others_from_being_kept(served, half):
    answers = [{"text": "a", "label": half.labels[0]}, {"text": "b", "label": "nonsense"}]
    async with open_endpoint(served) as endpoint:
        refused = await endpoint.post("/v1/feedback", {"answers": answers})
        kept = (await endpoint.post("/v1/feedback", {"answers": answers[:1]})).json()["kept"]
    assert refused.status_code == 422
    assert kept == 1


# --- the queue ---------------------------------------------------------------------------------


async def test_what_nobody_answered_waits_for_a_person_who_takes_it_off(served, sorts, half):
    text, other = sorts.doubtful[:2]
    async with open_endpoint(served, judge={"spec": "off"}) as endpoint:
        (result,) = await endpoint.classify([text])
        await endpoint.classify([other, *sorts.sure])
        queue = await endpoint.queued()
        assert {item["text"] for item in queue} == {text, other}
        (item,) = (item for item in queue if item["text"] == text)
        named = [one["label"] for one in item["candidates"]]
        assert named == [result["label"], *(one["label"] for one in result["alternatives"])]
        assert (item["reason"], item["note"]) == ("escalated", "")
        assert item["at"] is not None
        body = {"answers": [{"text": text, "label": half.labels[0]}]}
        await endpoint.post("/v1/feedback", body)
        assert [item["text"] for item in await endpoint.queued()] == [other]


async def test_what_the_judge_gave_no_result_on_waits_with_the_reason(served, sorts):
    failing = opens_one(raising(JudgeUnavailable("nobody there")))
    async with open_endpoint(served, failing) as endpoint:
        await endpoint.classify(sorts.doubtful[:1])
        (item,) = await endpoint.queued()
    assert (item["reason"], item["note"]) == ("abstained", "nobody there")


async def test_what_the_judge_answered_waits_for_nobody(served, sorts):
    async with open_endpoint(served, opens(FakeJudge(first_candidate))) as endpoint:
        await endpoint.classify([*sorts.doubtful, *sorts.sure])
        assert await endpoint.queued() == []


async def test_where_nobody_was_to_be_asked_nobody_is_bothered(served, sorts):
    async with open_endpoint(served) as endpoint:
        await endpoint.classify(sorts.doubtful, escalate="never")
        assert await endpoint.queued() == []


async def test_an_answer_that_comes_late_takes_the_text_off_even_before_it_was_told(
    served, sorts, monkeypatch
):
    """The text waits from when it was asked about, not from when the desk heard of it."""
    monkeypatch.setattr(services, "REPORT_S", 1000.0)
    judge = held_judge()
    async with open_endpoint(served, opens(judge), judge={"wait_s": 0.02}) as endpoint:
        (result,) = await endpoint.classify(sorts.doubtful[:1])
        assert result["decision"] == "escalate"
        judge.gate.set()
        await until(lambda: endpoint.service._judging.n_open == 0)
        assert len(judge.asked) == 1
        assert await endpoint.queued() == []


async def test_disputed_labels_of_training_wait_too(served, corpus):
    dispute = Dispute(corpus.texts[0], "a", False, None, "b", 0.75)
    ledger = Ledger(served / "ledger.sqlite")
    write_disputes(served / DISPUTED, [dispute], ledger, texts=corpus.texts)
    ledger.close()
    async with open_endpoint(served) as endpoint:
        (item,) = await endpoint.queued()
    assert (item["reason"], item["text"]) == ("disputed", corpus.texts[0])
    assert item["candidates"] == [{"label": "b", "confidence": 0.75}]
    assert {"by": "user", "label": "a"} in item["said"]
    assert {"by": "model", "label": "b"} in item["said"]


class AwayDesk(Desk):
    """Takes no reports while it is away; keeps those that it takes."""

    def __init__(self, settings):
        super().__init__(settings, refuses_to_open)
        self.error: BaseException | None = StorageError("the disk is full")
        self.told: list[str] = []

    async def report(self, run, snapshot, reviews):
        if self.error is not None:
            raise self.error
        self.told += [one.text for one in reviews]
        return await super().report(run, snapshot, reviews)


@pytest.fixture
def away(served):
    judge = {"spec": "off"}
    return AwayDesk(parse_settings({"run": str(served), "judge": judge}))


@pytest.mark.parametrize("error", [StorageError("full"), RuntimeError("x")])
async def test_texts_for_people_outlast_a_desk_that_is_away(served, sorts, away, error):
    away.error = error
    texts = sorts.doubtful[:3]
    async with open_endpoint(served, desk=away, judge={"spec": "off"}) as endpoint:
        await endpoint.classify(texts[:2])
        answer = await endpoint.client.get("/v1/stats")
        assert answer.status_code in (200, 500)
        await endpoint.classify(texts[2:])
        away.error = None
        await endpoint.get("/v1/stats")
        assert away.told == [*texts]
        await endpoint.get("/v1/stats")
        assert away.told == [*texts], "each is told once"


class SlowDesk(AwayDesk):
    """Takes a report that carries texts only when its gate opens."""

    def __init__(self, settings):
        super().__init__(settings)
        self.error = None
        self.gate = asyncio.Event()

    async def report(self, run, snapshot, reviews):
        if reviews:
            await self.gate.wait()
        return await super().report(run, snapshot, reviews)


async def test_who_asks_for_stats_waits_for_a_report_that_is_on_its_way(served, sorts):
    desk = SlowDesk(parse_settings({"run": str(served), "judge": {"spec": "off"}}))
    async with open_endpoint(served, desk=desk, judge={"spec": "off"}) as endpoint:
        await endpoint.classify(sorts.doubtful[:2])
        first = asyncio.create_task(endpoint.get("/v1/stats"))
        await until(lambda: not endpoint.service._reviews)
        second = asyncio.create_task(endpoint.get("/v1/stats"))
        await asyncio.sleep(0.05)
        assert not second.done(), "what it tells would lack what the first one carries"
        desk.gate.set()
        await asyncio.gather(first, second)
        assert desk.told == list(sorts.doubtful[:2])


async def test_so_many_texts_are_kept_for_a_desk_that_is_away_and_no_more(
    served, sorts, away, monkeypatch
):
    monkeypatch.setattr(services, "MAX_REVIEWS_WAITING", 3)
    async with open_endpoint(served, desk=away, judge={"spec": "off"}) as endpoint:
        for texts in (sorts.doubtful[:2], sorts.doubtful[2:6]):
            await endpoint.classify(texts)
            await endpoint.client.get("/v1/stats")
        away.error = None
        await endpoint.get("/v1/stats")
    assert away.told == [*sorts.doubtful[:3]]


async def test_what_was_not_told_yet_is_told_at_the_end(served, sorts, away):
    away.error = None
    async with open_endpoint(served, desk=away, judge={"spec": "off"}) as endpoint:
        await endpoint.classify(sorts.doubtful[:1])
    assert away.told == [sorts.doubtful[0]]


# --- what is counted ---------------------------------------------------------------------------


async def test_calls_and_what_became_of_their_texts_are_counted(served, sorts):
    n_sure, n_doubtful = len(sorts.sure), len(sorts.doubtful)
    async with open_endpoint(served, opens(FakeJudge(first_candidate))) as endpoint:
        await endpoint.classify([*sorts.sure, *sorts.doubtful])
        await endpoint.classify(sorts.doubtful, escalate="never")
        await endpoint.post("/v1/classify", {"texts": []})
        stats = await endpoint.get("/v1/stats")
    assert (stats["requests"], stats["texts"]) == (2, n_sure + 2 * n_doubtful)
    assert (stats["errors"], stats["refused"], stats["replicas"]) == (0, 0, 1)
    assert stats["decisions"]["escalate"] == n_doubtful
    assert sum(stats["decisions"].values()) == stats["texts"]
    assert stats["sources"] == {"judge": n_doubtful, "model": n_sure + n_doubtful}
    assert stats["judge"]["requests"] == n_doubtful
    assert stats["p50_ms"] > 0
    assert sum(point["texts"] for point in stats["history"]) == stats["texts"]


async def test_the_share_of_escalated_texts_is_of_what_the_model_chose(served, sorts):
    """Not of what a caller asked always or never to be asked about."""
    n_sure, n_doubtful = len(sorts.sure), len(sorts.doubtful)
    async with open_endpoint(served, opens(FakeJudge(first_candidate))) as endpoint:
        await endpoint.classify(sorts.sure, escalate="always")
        await endpoint.classify(sorts.doubtful, escalate="never")
        assert (await endpoint.get("/v1/stats"))["escalation"]["n_texts"] == 0
        await endpoint.classify([*sorts.sure, *sorts.doubtful])
        found = (await endpoint.get("/v1/stats"))["escalation"]
    assert found["n_texts"] == n_sure + n_doubtful
    assert found["share"] == pytest.approx(n_doubtful / (n_sure + n_doubtful))


# --- what is told ------------------------------------------------------------------------------


async def test_the_model_is_told_with_its_judge_and_limits(served, half):
    limits = {"texts_per_call": 7, "wait_s": 1.5}
    async with open_endpoint(served, limits=limits) as endpoint:
        info = await endpoint.get("/v1/model")
    assert [one["label"] for one in info["labels"]] == list(half.labels)
    assert (info["judge"]["judge"], info["judge"]["simulated"]) == (SPEC, False)
    assert info["judge"]["on_failure"] == "abstain"
    assert info["limits"] == {
        "texts_per_call": 7,
        "chars_per_text": half.config.max_chars,
        "body_bytes": 4 * 2**20,
        "wait_s": 1.5,
    }
    assert (info["layout"], info["failed_update"]) == ("packed", None)


async def test_nothing_goes_on_after_the_end(served, corpus):
    before = asyncio.all_tasks()
    async with open_endpoint(copy(served, served.with_name("again")), **QUICK) as endpoint:
        await endpoint.classify(corpus.test, escalate="never")
    assert asyncio.all_tasks() == before
