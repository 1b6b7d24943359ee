"""What every ledger does, whatever database keeps it; a subclass tells the `place`."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from red_ray.errors import OutputError, StorageError
from red_ray.judges.ledger import (
    UNKNOWN,
    HumanVerdict,
    Kept,
    Ledger,
    Received,
    RequestCounts,
    Review,
    Sent,
    Spent,
    Unsent,
)
from red_ray.judges.ledger.schema import REVIEWS
from red_ray.judges.ledger.transfer import RecordCounts, exported, take_records
from red_ray.types import Candidate, Outcome, Question, Verdict

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)
FAILED = [Outcome.UNREADABLE, Outcome.TIMEOUT, Outcome.ERROR]
ANSWERS = [Outcome.LABEL, Outcome.NONE]
LABELS = ("card_arrival", "card_lost", "top_up")
ROOT = Path(__file__).parents[1]

HOLD = """
import sys, time
from red_ray.judges.ledger import Ledger
ledger = Ledger(sys.argv[1])
lease = ledger.lease("fake")
print("held", flush=True)
time.sleep(60)
"""


def question(text: str = "where is my card?", mode: str = "choose") -> Question:
    return Question(text, tuple(Candidate(label) for label in LABELS), mode)


def verdict(key: str = "k", outcome: Outcome = Outcome.LABEL, *, requests: int = 1) -> Verdict:
    label = "card_lost" if outcome is Outcome.LABEL else None
    return Verdict(key, outcome, label, "fake", requests, 12.5, 100, 7, cost_usd=0.25, version="v1")


def kept(one: Verdict, asked_in: str = "", text: str = "where is my card?") -> Kept:
    return Kept(one, question(text), asked_in)


def sent(number: int = 0, *, judge: str = "fake", asked_in: str = "run/1") -> Sent:
    at = NOON + timedelta(seconds=number)
    return Sent(f"{number:032x}", "k", judge, asked_in, at, 1000, 0.5)


def received(number: int = 0, result: str = "label", **told: object) -> Received:
    return Received(f"{number:032x}", result, **told)  # type: ignore[arg-type]


def review(text: str = "where is my card?", minute: int = 0, **told: object) -> Review:
    candidates = (("card_lost", 0.5), ("top_up", 0.25))
    at = NOON + timedelta(minutes=minute)
    return Review(text, "escalated", candidates, created_at=at, **told)  # type: ignore[arg-type]


def waiting(ledger: Ledger, limit: int = 100) -> list[str]:
    found = [one.text for one in ledger.open_reviews(limit)]
    assert ledger.n_open_reviews() == len(found) or len(found) == limit
    return found


def lines(ledger: Ledger) -> list[bytes]:
    return [json.dumps(row).encode() for row in exported(ledger)]


class LedgerSuite:
    """The contract; `place` is an empty one of each test's own."""

    @pytest.fixture
    def place(self) -> str | Path:
        raise NotImplementedError

    @pytest.fixture
    def ledger(self, place: str | Path) -> Iterator[Ledger]:
        opened = Ledger(place, now=lambda: NOON)
        yield opened
        opened.close()

    @pytest.fixture
    def second(self, tmp_path: Path) -> Iterator[Ledger]:
        """Another one to move to, always a file."""
        opened = Ledger(tmp_path / "second.sqlite", now=lambda: NOON)
        yield opened
        opened.close()

    # Verdicts

    @pytest.mark.parametrize("outcome", ANSWERS)
    def test_an_answer_comes_back_for_free(self, ledger: Ledger, outcome: Outcome) -> None:
        ledger.write([kept(verdict(outcome=outcome, requests=3), "run/1")])
        free = replace(verdict(outcome=outcome, requests=0), cost_usd=0.0)
        assert ledger.get_many(["k", "other"]) == {"k": free}
        assert ledger.get_many(["k"], asked_in="run/2") == {"k": free}

    @pytest.mark.parametrize("outcome", list(Outcome))
    def test_a_round_that_is_replayed_sees_what_it_saw(
        self, ledger: Ledger, outcome: Outcome
    ) -> None:
        seen = replace(verdict(outcome=outcome, requests=3), error="why")
        ledger.write([kept(seen, "run/1")])
        assert ledger.get_many(["k"], asked_in="run/1") == {"k": seen}

    def test_a_replay_is_told_nothing_of_earlier_rounds(self, ledger: Ledger) -> None:
        failed = replace(verdict(outcome=Outcome.TIMEOUT, requests=4), error="late")
        ledger.write([kept(failed, "run/1")])
        ledger.write([kept(verdict(requests=2), "run/2")])
        assert ledger.get_many(["k"], asked_in="run/1") == {"k": failed}
        assert ledger.get_many(["k"], asked_in="run/2") == {"k": verdict(requests=2)}

    def test_what_failed_in_a_round_may_be_asked_anew_in_it(self, ledger: Ledger) -> None:
        ledger.write([kept(verdict(outcome=Outcome.TIMEOUT, requests=4), "run/1")])
        assert ledger.get_many(["k"], asked_in="run/1", replay=False) == {}
        ledger.write([kept(verdict(requests=2), "run/1")])
        for replay in (True, False):
            found = ledger.get_many(["k"], asked_in="run/1", replay=replay)
            assert found == {"k": verdict(requests=2)}

    @pytest.mark.parametrize("outcome", FAILED)
    def test_a_failure_counts_but_does_not_come_back(
        self, ledger: Ledger, outcome: Outcome
    ) -> None:
        ledger.write([kept(verdict(outcome=outcome, requests=3), "run/1")])
        assert ledger.get_many(["k"]) == {}
        assert ledger.get_many(["k"], asked_in="run/10") == {}
        assert list(ledger.verdicts()) == [verdict(outcome=outcome, requests=3)]

    def test_a_failure_of_no_round_is_never_replayed(self, ledger: Ledger) -> None:
        ledger.write([kept(verdict(outcome=Outcome.ERROR))])
        assert ledger.get_many(["k"], asked_in="") == {}

    @pytest.mark.parametrize("outcome", FAILED)
    def test_an_answer_after_a_failure_adds_up(self, ledger: Ledger, outcome: Outcome) -> None:
        ledger.write([kept(replace(verdict(outcome=outcome, requests=3), error="why"))])
        ledger.write([kept(verdict(requests=2))])
        (found,) = ledger.verdicts()
        summed = {"requests": 5, "prompt_tokens": 200, "completion_tokens": 14, "cost_usd": 0.5}
        assert found == replace(verdict(), **summed)

    @pytest.mark.parametrize("costs", [(None, 0.25), (0.25, None)])
    def test_a_cost_that_one_try_does_not_know_is_that_of_the_other(
        self, ledger: Ledger, costs: tuple[float | None, float | None]
    ) -> None:
        for outcome, cost in zip([Outcome.ERROR, Outcome.LABEL], costs, strict=True):
            ledger.write([kept(replace(verdict(outcome=outcome), cost_usd=cost))])
        assert [one.cost_usd for one in ledger.verdicts()] == [0.25]

    @pytest.mark.parametrize("outcome", list(Outcome))
    def test_nothing_replaces_an_answer(self, ledger: Ledger, outcome: Outcome) -> None:
        ledger.write([kept(verdict(), "run/1")])
        later = replace(verdict(outcome=outcome), label=None, error="later", version="v2")
        ledger.write([kept(later, "run/2")])
        answer = ledger.get_many(["k"])["k"]
        assert (answer.label, answer.error, answer.version) == ("card_lost", "", "v1")
        assert [one.requests for one in ledger.verdicts()] == [2]

    def test_it_opens_again_with_everything(self, ledger: Ledger, place: str | Path) -> None:
        ledger.write([sent(), kept(verdict())])
        again = Ledger(place)
        assert again.spent("fake").requests == 1
        assert list(again.get_many(["k"])) == ["k"]
        again.close()

    def test_many_are_one_commit_and_looked_up_in_chunks(self, ledger: Ledger) -> None:
        ledger.write([kept(verdict(f"{i:04d}"), text=f"text {i}") for i in range(2_000)])
        ledger.write([])
        keys = [f"{i:04d}" for i in reversed(range(2_500))]
        assert list(ledger.get_many(keys)) == keys[500:], "in the order of the question"
        assert [one.key for one in ledger.verdicts()] == sorted(keys)[:2_000]
        assert ledger.get_many([]) == {}

    def test_many_are_all_or_none(self, ledger: Ledger) -> None:
        broken = replace(verdict("b"), judge=None)  # type: ignore[arg-type]
        entries = [sent(), kept(verdict("a")), kept(broken, text="private words")]
        with pytest.raises(StorageError, match="judge") as caught:
            ledger.write(entries)
        assert "private" not in f"{caught.value} {caught.value.__cause__}"
        assert list(ledger.verdicts()) == []
        assert ledger.spent("fake") == Spent(0, 0, 0.0)

    def test_an_empty_ledger_holds_nothing(self, ledger: Ledger) -> None:
        assert list(ledger.verdicts()) == list(ledger.records()) == list(ledger.humans()) == []
        assert ledger.spent("fake") == Spent(0, 0, 0.0)
        assert ledger.requests_of("run") == RequestCounts({}, 0, None)
        assert ledger.labels() == frozenset()

    def test_it_serves_other_threads(self, ledger: Ledger) -> None:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda i: ledger.write([kept(verdict(f"k{i}"))]), range(40)))
        assert sum(one.requests for one in ledger.verdicts()) == 40

    def test_two_openers_see_each_other(self, ledger: Ledger, place: str | Path) -> None:
        other = Ledger(place)
        other.write([kept(verdict())])
        ledger.write([kept(verdict("k2"))])
        assert len(list(ledger.verdicts())) == len(list(other.verdicts())) == 2
        other.close()

    def test_two_that_write_the_same_keys_do_not_lock_each_other_out(
        self, ledger: Ledger, place: str | Path
    ) -> None:
        other, together = Ledger(place), threading.Barrier(2)
        keys = [f"{i:03d}" for i in range(200)]

        def write(one: Ledger, keys: list[str]) -> None:
            together.wait(10)
            for _ in range(3):
                one.write([kept(verdict(key)) for key in keys])

        with ThreadPoolExecutor(2) as threads:
            jobs = [threads.submit(write, ledger, keys), threads.submit(write, other, keys[::-1])]
            for job in jobs:
                job.result()
        assert {one.requests for one in ledger.verdicts()} == {6}
        other.close()

    def test_many_open_an_empty_place_at_once(self, place: str | Path) -> None:
        together = threading.Barrier(8)

        def open_one(_: int) -> Ledger:
            together.wait(10)
            return Ledger(place)

        with ThreadPoolExecutor(8) as threads:
            opened = list(threads.map(open_one, range(8)))
        opened[0].write([kept(verdict())])
        assert [list(one.get_many(["k"])) for one in opened] == [["k"]] * 8
        for one in opened:
            one.close()

    def test_words_that_are_no_unicode_are_stored(self, ledger: Ledger) -> None:
        strange = "half a pair \ud83d and \x00"
        error = replace(verdict("e", Outcome.ERROR), error=strange)
        ledger.write([kept(verdict(), text=strange), kept(error, "run/1")])
        assert list(ledger.get_many(["k", "e"], asked_in="run/1")) == ["k", "e"]
        at = NOON + timedelta(hours=1)
        ledger.add_reviews([Review(strange, "abstained", ((strange, 0.5),), strange, "", at)])
        assert [one.candidates[0][1] for one in ledger.open_reviews(9)] == [0.5]
        ledger.add_humans([HumanVerdict(strange, None)])
        assert ledger.humans_of([strange]) == {strange: None}
        assert ledger.open_reviews(9) == []

    def test_a_record_holds_all_that_was_kept(self, ledger: Ledger) -> None:
        ledger.write([Kept(verdict(), question("Ünïcode 🙂", mode="verify"), "run/1")])
        (record,) = ledger.records()
        assert (record.text, record.mode, record.candidates) == ("Ünïcode 🙂", "verify", LABELS)
        assert (record.asked_in, record.created_at, record.judge) == ("run/1", NOON, "fake")
        assert (record.outcome, record.label, record.version) == (
            Outcome.LABEL,
            "card_lost",
            "v1",
        )
        assert ledger.labels() == set(LABELS)

    def test_records_on_one_text_follow_each_other(self, ledger: Ledger) -> None:
        texts = [f"text {i % 5}" for i in range(20)]
        ledger.write([kept(verdict(f"{i:02d}"), text=text) for i, text in enumerate(texts)])
        found = [record.text for record in ledger.records()]
        n_changes = sum(a != b for a, b in itertools.pairwise(found))
        assert (len(found), n_changes) == (20, 4)

    # Requests

    def test_a_request_counts_with_its_estimate_until_it_is_known(self, ledger: Ledger) -> None:
        ledger.write([sent(0), sent(1), sent(2, judge="other")])
        assert ledger.spent("fake") == Spent(2, 2000, 1.0)
        ledger.write([received(0, prompt_tokens=90, completion_tokens=10, cost_usd=0.1)])
        assert ledger.spent("fake") == Spent(2, 1100, 0.6)

    @pytest.mark.parametrize(
        ("told", "spent"),
        [
            ({}, Spent(1, 0, 0.0)),  # a 429 is free
            ({"kept_estimate": True}, Spent(1, 1000, 0.5)),  # a time-out may have been paid for
            ({"prompt_tokens": 7}, Spent(1, 7, 0.5)),
            ({"cost_usd": 0.0}, Spent(1, 0, 0.0)),
            ({"cost_usd": 0.75, "kept_estimate": True}, Spent(1, 1000, 0.75)),
        ],
    )
    def test_what_is_known_replaces_the_estimate(
        self, ledger: Ledger, told: dict[str, object], spent: Spent
    ) -> None:
        ledger.write([sent(), received(result="x", **told)])
        assert ledger.spent("fake") == spent

    def test_without_a_price_nothing_has_a_cost(self, ledger: Ledger) -> None:
        ledger.write([replace(sent(), cost_usd=None), received(prompt_tokens=5)])
        assert ledger.spent("fake") == Spent(1, 5, 0.0)
        assert ledger.requests_of("run") == RequestCounts({"label": 1}, 5, None)

    def test_requests_of_a_run_are_those_of_its_rounds(self, ledger: Ledger) -> None:
        rounds = ["run/1", "run/2", "run", "run2/1", "RUN/1", "ru_/1", ""]
        ledger.write([sent(i, asked_in=one) for i, one in enumerate(rounds)])
        ledger.write([received(0, "http_429"), received(1, "label", prompt_tokens=5)])
        assert ledger.requests_of("run") == RequestCounts({"http_429": 1, "label": 1}, 5, 0.5)
        assert ledger.requests_of("ru_") == RequestCounts({UNKNOWN: 1}, 1000, 0.5)

    def test_sends_are_told_from_a_moment_on(self, ledger: Ledger) -> None:
        ledger.write([sent(2), sent(0), sent(1), sent(3, judge="other")])
        ledger.write([received(2, prompt_tokens=9)])
        since = (NOON + timedelta(seconds=1)).astimezone(timezone(timedelta(hours=5)))
        expected = [(NOON + timedelta(seconds=1), 1000), (NOON + timedelta(seconds=2), 9)]
        assert ledger.sends_since("fake", since) == expected

    def test_everything_is_counted_by_judge(self, ledger: Ledger) -> None:
        ledger.write([sent(0), sent(1), sent(2), sent(3, judge="other")])
        ledger.write([received(0, latency_ms=30.0, kept_estimate=True)])
        ledger.write([received(1, "timeout", latency_ms=10.0)])
        ledger.write([kept(verdict("a")), kept(verdict("b", Outcome.ERROR))])
        assert ledger.requests_by_judge() == {
            "fake": RequestCounts({"label": 1, "timeout": 1, UNKNOWN: 1}, 2000, 1.0),
            "other": RequestCounts({UNKNOWN: 1}, 1000, 0.5),
        }
        assert ledger.outcomes_by_judge() == {"fake": {"error": 1, "label": 1}}
        assert sorted(ledger.latencies_ms("fake")) == [10.0, 30.0]
        assert ledger.latencies_ms("other") == []

    def test_a_request_that_did_not_leave_is_as_if_it_had_never_been(self, ledger: Ledger) -> None:
        ledger.write([sent(0), sent(1)])
        ledger.write([Unsent(sent(0).id)])
        assert ledger.spent("fake") == Spent(1, 1000, 0.5)

    # People

    def test_people_are_asked_by_text_however_it_is_written(self, ledger: Ledger) -> None:
        ledger.add_humans([HumanVerdict("Where  is it?", "card_lost"), HumanVerdict("hm", None)])
        found = ledger.humans_of(["where is IT?", "hm", "unseen"])
        assert found == {"where is IT?": "card_lost", "hm": None}

    def test_a_later_word_of_a_person_counts(self, ledger: Ledger) -> None:
        before, after = NOON - timedelta(hours=1), NOON + timedelta(hours=1)
        assert ledger.add_humans([HumanVerdict("t", "a")]) == 1
        assert ledger.add_humans([HumanVerdict("T", "b"), HumanVerdict("t", "c", before)]) == 1
        assert ledger.humans_of(["t"]) == {"t": "b"}
        assert ledger.add_humans([HumanVerdict("t", None, after)]) == 1
        assert list(ledger.humans()) == [HumanVerdict("t", None, after)]

    def test_many_people_are_looked_up_in_chunks(self, ledger: Ledger) -> None:
        texts = [f"text {i}" for i in range(1_200)]
        assert ledger.add_humans(HumanVerdict(text, text) for text in texts) == 1_200
        assert ledger.humans_of([*texts, "unseen"]) == dict(zip(texts, texts, strict=True))
        assert ledger.add_humans([]) == 0

    # Texts that wait for a person

    def test_what_waits_for_a_person_is_kept_whole(self, ledger: Ledger, place: str | Path) -> None:
        one = review("Ünïcode 🙂", note="timed out", bundle="b" * 64)
        ledger.add_reviews([one, Review("bare", "abstained", ())])
        again = Ledger(place)
        bare = Review("bare", "abstained", (), created_at=NOON)
        assert sorted(again.open_reviews(9), key=lambda found: found.text) == [bare, one]
        again.close()

    def test_the_newest_come_first(self, ledger: Ledger) -> None:
        ledger.add_reviews([review("b", 2), review("a", 1), review("c", 3)])
        assert waiting(ledger) == ["c", "b", "a"]
        assert waiting(ledger, 2) == ["c", "b"]
        assert ledger.n_open_reviews() == 3

    def test_of_a_text_the_newest_word_stands(self, ledger: Ledger) -> None:
        ledger.add_reviews([review("Where  is it?", 1, note="new"), review("where IS it?", 0)])
        ledger.add_reviews([review("where is it?", 0, note="old")])
        assert [one.note for one in ledger.open_reviews(9)] == ["new"]
        ledger.add_reviews([review("where is it?", 2, note="newer")])
        assert [one.note for one in ledger.open_reviews(9)] == ["newer"]
        ledger.add_reviews([])
        assert ledger.n_open_reviews() == 1

    @pytest.mark.parametrize("label", ["card_lost", None])
    def test_what_a_person_answered_waits_no_longer(
        self, ledger: Ledger, label: str | None
    ) -> None:
        ledger.add_reviews([review("Yes", 0), review("no", 1)])
        ledger.add_humans([HumanVerdict(" yes ", label)])
        assert waiting(ledger) == ["no"]

    @pytest.mark.parametrize(
        ("outcome", "mode", "minute", "waits"),
        [
            (Outcome.LABEL, "choose", 0, False),
            (Outcome.NONE, "choose", -1, False),
            (Outcome.LABEL, "verify", 0, False),
            (Outcome.NONE, "verify", 0, True),  # a "no" leaves all other labels
            (Outcome.LABEL, "describe", 0, True),
            (Outcome.LABEL, "paraphrase", 0, True),
            (Outcome.LABEL, "choose", 1, True),  # to another question, before
            (Outcome.TIMEOUT, "choose", 0, True),
            (Outcome.UNREADABLE, "choose", 0, True),
        ],
    )
    def test_what_a_judge_answers_since_waits_no_longer(
        self, ledger: Ledger, outcome: Outcome, mode: str, minute: int, waits: bool
    ) -> None:
        ledger.add_reviews([review("asked", minute), review("not asked", minute)])
        ledger.write([Kept(verdict(outcome=outcome), question("Asked", mode))])
        assert sorted(waiting(ledger)) == [*["asked"] * waits, "not asked"]

    def test_the_oldest_go_when_too_many_wait(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("red_ray.judges.ledger.store.MAX_REVIEWS", 3)
        ledger.add_reviews([review(f"{i}", i) for i in (4, 0, 3, 1, 2)])
        assert waiting(ledger) == ["4", "3", "2"]
        ledger.add_reviews([review("older", 1)])
        assert waiting(ledger) == ["4", "3", "2"]
        ledger.add_reviews([review(f"together {i}", 5) for i in range(5)])
        assert len(waiting(ledger)) == 3, "one moment is no reason to lose them all"

    def test_two_that_let_the_same_texts_wait_do_not_lock_each_other_out(
        self, ledger: Ledger, place: str | Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("red_ray.judges.ledger.store.MAX_REVIEWS", 50)
        other, together = Ledger(place), threading.Barrier(2)
        texts = [f"{i:03d}" for i in range(100)]

        def write(one: Ledger, texts: list[str]) -> None:
            together.wait(10)
            for turn in range(5):
                one.add_reviews([review(text, turn) for text in texts])

        with ThreadPoolExecutor(2) as threads:
            jobs = [threads.submit(write, ledger, texts), threads.submit(write, other, texts[::-1])]
            for job in jobs:
                job.result()
        assert ledger.n_open_reviews() == 50
        other.close()

    def test_a_ledger_of_before_takes_texts_that_wait(
        self, ledger: Ledger, place: str | Path
    ) -> None:
        ledger.write([kept(verdict())])
        with ledger._engine.begin() as connection:
            REVIEWS.drop(connection)
        later = Ledger(place)
        later.add_reviews([review("new")])
        assert waiting(later) == ["new"]
        assert list(later.get_many(["k"])) == ["k"]
        later.close()

    def test_no_text_that_waits_is_told_where_it_cannot_be_stored(self, ledger: Ledger) -> None:
        broken = replace(review("private words"), reason=None)  # type: ignore[arg-type]
        with pytest.raises(StorageError, match="reason") as caught:
            ledger.add_reviews([review("fine"), broken])
        assert "private" not in f"{caught.value} {caught.value.__cause__}"
        assert waiting(ledger) == []

    # Transfer

    def test_a_ledger_moves_whole_and_once(self, ledger: Ledger, second: Ledger) -> None:
        keys = [f"{i:04d}" for i in range(1_500)]
        ledger.write([kept(verdict(key), "run/1", f"text {key}") for key in keys])
        failed = replace(verdict("failed", Outcome.TIMEOUT), error="late", cost_usd=None)
        ledger.write([kept(failed), sent()])
        ledger.add_humans([HumanVerdict("mine", "a"), HumanVerdict("none", None)])
        moved = lines(ledger)
        assert take_records(second, moved) == RecordCounts(new=1_501, humans=2)
        assert lines(second) == moved
        assert take_records(second, moved) == RecordCounts(known=1_503)
        assert lines(second) == moved
        assert second.spent("fake").requests == 0, "what another paid is not spent here"

    @pytest.mark.parametrize("outcome", ANSWERS)
    def test_an_answer_of_another_ledger_replaces_a_failure_only(
        self, ledger: Ledger, second: Ledger, outcome: Outcome
    ) -> None:
        ledger.write([kept(verdict("a", outcome)), kept(verdict("b", outcome))])
        second.write([kept(verdict("a", Outcome.TIMEOUT), "run/1"), kept(verdict("b"))])
        assert take_records(second, lines(ledger)) == RecordCounts(new=1, known=1)
        found = second.get_many(["a", "b"])
        assert (found["a"].outcome, found["b"].label) == (outcome, "card_lost")
        assert take_records(ledger, lines(second)) == RecordCounts(known=2)

    def test_the_later_word_of_a_person_wins_over_ledgers(
        self, ledger: Ledger, second: Ledger
    ) -> None:
        ledger.add_humans([HumanVerdict("t", "early"), HumanVerdict("u", "early")])
        later = NOON + timedelta(days=1)
        second.add_humans([HumanVerdict("t", "late", later), HumanVerdict("u", None, later)])
        assert take_records(second, lines(ledger)) == RecordCounts(known=2)
        assert take_records(ledger, lines(second)) == RecordCounts(humans=2)
        assert ledger.humans_of(["t", "u"]) == {"t": "late", "u": None}

    # Lease

    def test_one_process_at_a_time_asks_a_judge(self, ledger: Ledger, place: str | Path) -> None:
        command = [sys.executable, "-c", HOLD, str(place)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(OutputError, match="another process asks the judge 'fake'"):
                ledger.lease("fake")
            ledger.lease("another").release()
            slept_s: list[float] = []
            with pytest.raises(OutputError, match="wait until it ends, or stop it"):
                ledger.lease("fake", wait_s=0.35, sleep=slept_s.append)
            assert math.isclose(sum(slept_s), 0.4)

            def kill(_: float) -> None:
                holder.kill()
                holder.wait()

            ledger.lease("fake", wait_s=60, sleep=kill).release()

    def test_a_lease_is_given_back_once(self, ledger: Ledger) -> None:
        with ledger.lease("fake") as lease:
            pass
        lease.release()
        ledger.lease("fake").release()
