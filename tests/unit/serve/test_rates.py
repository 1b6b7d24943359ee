"""Live rates: counts that add up over replicas, and an alarm that means something."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from red_ray.judges import PoolStats
from serve.rates import N_SPANS, OUTSIDE, WINDOW_TEXTS, Board, Promised, Rates, band, merged
from serve.schemas import RATE_SPAN_S

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC).timestamp()
PROMISED = Promised(300, 1000, "b")


class Clock:
    def __init__(self):
        self.now = NOON

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def call(one, *decisions, escalated=0, auto=True, bundle="b", sources=None):
    one.add(
        decisions=decisions,
        sources=sources or ["model"] * len(decisions),
        n_escalated=escalated,
        is_auto=auto,
        bundle=bundle,
    )


def many(one, n_texts, escalated, **told):
    call(one, *["accept"] * n_texts, escalated=escalated, **told)


def told(*replicas, clock, promised=PROMISED):
    snapshots = [one.snapshot() for one in replicas]
    return merged(snapshots, now=clock(), promised=promised, judge=None)


# --- what is counted ---------------------------------------------------------------------------


def test_replicas_add_up(clock):
    first, second = Rates("1", clock=clock), Rates("2", clock=clock)
    call(first, "accept", "escalate", escalated=1)
    call(second, "accept", "none", sources=["human", "judge"], escalated=1)
    second.error()
    second.refusal()
    clock.now += 1
    stats = told(first, second, clock=clock)
    assert (stats.replicas, stats.requests, stats.texts) == (2, 4, 4)
    assert (stats.errors, stats.refused) == (1, 1)
    assert stats.decisions == {"accept": 2, "escalate": 1, "none": 1}
    assert stats.sources == {"human": 1, "judge": 1, "model": 2}
    assert stats.started_at == datetime.fromtimestamp(NOON, UTC)
    assert stats.texts_per_s == 4
    (point,) = stats.history
    assert (point.requests, point.texts, point.escalated, point.errors) == (4, 4, 2, 1)


def test_before_the_first_call_nothing_is_made_up(clock):
    for stats in (told(clock=clock), told(Rates("1", clock=clock), clock=clock)):
        assert (stats.requests, stats.texts_per_s) == (0, 0)
        assert (stats.p50_ms, stats.p99_ms, stats.judge) == (None, None, None)
        assert stats.escalation.share is stats.escalation.low is stats.escalation.high is None
        assert stats.escalation.promised == 0.3
        assert not stats.escalation.estimate
        assert not stats.escalation.alarm


def test_spans_without_a_call_are_told_too(clock):
    one = Rates("1", clock=clock)
    call(one, "accept")
    clock.now += 3 * RATE_SPAN_S
    call(one, "accept", "accept")
    points = told(one, clock=clock).history
    assert [point.texts for point in points] == [1, 0, 0, 2]
    assert (points[-1].at - points[0].at).total_seconds() == 3 * RATE_SPAN_S


def test_ten_minutes_are_kept_and_totals_for_ever(clock):
    one = Rates("1", clock=clock)
    for _ in range(N_SPANS + 20):
        call(one, "accept")
        one.latency(5.0)
        clock.now += RATE_SPAN_S
    snapshot, stats = one.snapshot(), told(one, clock=clock)
    assert (len(snapshot.spans), len(stats.history)) == (N_SPANS, N_SPANS)
    assert (stats.texts, sum(point.texts for point in stats.history)) == (80, N_SPANS - 1)


def test_a_clock_that_is_put_back_grows_nothing(clock):
    one = Rates("1", clock=clock)
    for _ in range(4 * N_SPANS):
        clock.now -= RATE_SPAN_S
        call(one, "accept")
    assert len(one.snapshot().spans) == N_SPANS
    assert told(one, clock=clock).texts == 4 * N_SPANS


def test_texts_per_second_are_those_of_the_last_minute(clock):
    one = Rates("1", clock=clock)
    many(one, 10_000, 0)
    clock.now += 300
    for _ in range(60):
        clock.now += 1
        many(one, 7, 0)
    assert told(one, clock=clock).texts_per_s == pytest.approx(7, rel=0.05)


def test_quantiles_are_right_to_a_bin(clock):
    one, rng = Rates("1", clock=clock), np.random.default_rng(0)
    latencies = rng.lognormal(3, 1, 5000)
    for latency_ms in latencies:
        one.latency(latency_ms)
    stats = told(one, clock=clock)
    assert stats.p50_ms == pytest.approx(np.quantile(latencies, 0.5), rel=0.03)
    assert stats.p99_ms == pytest.approx(np.quantile(latencies, 0.99), rel=0.03)


@pytest.mark.parametrize("latency_ms", [0.0, 1e-9, 0.1, 1e9])
def test_any_latency_has_a_bin(clock, latency_ms):
    one = Rates("1", clock=clock)
    one.latency(latency_ms)
    assert told(one, clock=clock).p50_ms == pytest.approx(max(0.1, min(latency_ms, 1e6)), rel=0.1)


def test_a_snapshot_crosses_processes_and_stays_as_it_was(clock):
    one = Rates("1", clock=clock)
    call(one, "accept")
    one.latency(3.0)
    before = one.snapshot()
    kept = pickle.loads(pickle.dumps(before))
    call(one, "none")
    one.latency(3.0)
    assert before == kept
    assert kept.spans[int(NOON // RATE_SPAN_S)].latencies.total() == 1


def test_what_the_judge_did_is_told(clock):
    pool = PoolStats(3, {"label": 3}, 3, 1, 0, 0, 0, 0, 0, 90, 0.5, 1.0, 2.0, "")
    judge = merged([], now=NOON, promised=None, judge=pool).judge
    assert judge is not None
    assert (judge["requests"], judge["cost_usd"], judge["results"]) == (3, 0.5, {"label": 3})


# --- replicas that come and go -----------------------------------------------------------------


def test_a_replica_that_died_loses_nothing(clock):
    board, one, other = Board(clock=clock), Rates("1", clock=clock), Rates("2", clock=clock)
    for replica in (one, other):
        call(replica, "accept", escalated=1)
        replica.latency(5.0)
        board.put(replica.snapshot())
    for minutes, n_in_history in ((1, 2), (11, 0)):
        clock.now = NOON + 60 * minutes
        board.put(other.snapshot())
        stats = board.stats(PROMISED, None)
        assert (stats.replicas, stats.texts, stats.decisions) == (1, 2, {"accept": 2})
        assert sum(point.texts for point in stats.history) == n_in_history
    assert [len(one.spans) for one in board._snapshots.values()] == [0, 1]


def test_a_replica_that_is_heard_of_again_counts_once(clock):
    board, one = Board(clock=clock), Rates("1", clock=clock)
    for _ in range(3):
        call(one, "accept")
        board.put(one.snapshot())
        clock.now += 3600
        assert board.stats(None, None).replicas == 0
    assert board.stats(None, None).texts == 3


def test_whether_a_replica_lives_is_told_by_the_boards_own_clock(clock):
    """Clocks of two machines may differ."""
    board = Board(clock=clock)
    board.put(replace(Rates("1", clock=clock).snapshot(), taken_at=NOON - 3600))
    assert board.stats(None, None).replicas == 1


# --- the share escalated against what was promised ---------------------------------------------


def test_the_last_texts_are_compared_however_long_ago_they_were(clock):
    one, other = Rates("1", clock=clock), Rates("2", clock=clock)
    for n_texts, escalated in ((WINDOW_TEXTS, WINDOW_TEXTS), (WINDOW_TEXTS // 2, 0)):
        for replica in (one, other):
            many(replica, n_texts, escalated)
        clock.now += 7200
    rate = told(one, other, clock=clock).escalation
    assert (rate.n_texts, rate.share) == (WINDOW_TEXTS, 0)
    assert rate.alarm


def test_the_window_does_not_grow(clock):
    one = Rates("1", clock=clock)
    for _ in range(3 * WINDOW_TEXTS):
        call(one, "accept")
        clock.now += RATE_SPAN_S
    assert len(one.snapshot().window) == WINDOW_TEXTS
    assert told(one, clock=clock).escalation.n_texts == WINDOW_TEXTS


def test_only_texts_that_the_model_chose_from_are_compared(clock):
    one = Rates("1", clock=clock)
    many(one, 500, 500, auto=False)
    many(one, 100, 30)
    rate = told(one, clock=clock).escalation
    assert (rate.n_texts, rate.share) == (100, 0.3)


def test_texts_of_another_bundle_are_held_against_no_promise(clock):
    one = Rates("1", clock=clock)
    many(one, 500, 500, bundle="old")
    assert told(one, clock=clock).escalation.n_texts == 0
    many(one, 200, 60)
    rate = told(one, clock=clock).escalation
    assert (rate.n_texts, rate.share, rate.alarm) == (200, 0.3, False)


def test_a_promise_from_training_rows_is_an_estimate(clock):
    one = Rates("1", clock=clock)
    expected = replace(PROMISED, is_estimate=True)
    assert told(one, clock=clock, promised=expected).escalation.estimate
    many(one, 200, 60)
    assert told(one, clock=clock, promised=expected).escalation.estimate


def test_without_a_promise_there_is_a_share_and_no_alarm(clock):
    one = Rates("1", clock=clock)
    many(one, 500, 500)
    rate = told(one, clock=clock, promised=None).escalation
    assert (rate.share, rate.n_texts) == (1, 500)
    assert rate.promised is rate.low is rate.high is None
    assert not rate.alarm


@pytest.mark.parametrize(("n_texts", "alarm"), [(99, False), (100, True)])
def test_few_texts_raise_no_alarm(clock, n_texts, alarm):
    one = Rates("1", clock=clock)
    many(one, n_texts, n_texts)
    rate = told(one, clock=clock).escalation
    assert rate.high is not None
    assert rate.high < 1
    assert rate.alarm is alarm


@pytest.mark.parametrize("edge", ["low", "high"])
def test_the_edges_of_the_band_belong_to_it(clock, edge):
    low, high = band(PROMISED, 1000)
    inside, outside = (low, low - 1) if edge == "low" else (high, high + 1)
    for n_escalated, alarm in ((inside, False), (outside, True)):
        one = Rates("1", clock=clock)
        many(one, 1000, n_escalated)
        rate = told(one, clock=clock).escalation
        assert rate.alarm is alarm
        assert (rate.low, rate.high) == (low / 1000, high / 1000)


@pytest.mark.parametrize(("n_escalated", "n_rows"), [(0, 1), (0, 500), (500, 500), (1, 10**6)])
def test_a_promise_at_an_end_has_a_band_all_the_same(n_escalated, n_rows):
    for n_texts in (1, 100, 5000):
        low, high = band(Promised(n_escalated, n_rows), n_texts)
        assert 0 <= low <= high <= n_texts


def test_more_rows_narrow_the_band():
    widths = [
        high - low for low, high in (band(Promised(3 * n, 10 * n), 1000) for n in (5, 50, 500))
    ]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 2 * widths[-1]


def alarm_rate(rng, *, share, n_rows, n_texts, then=None, n_windows=4000):
    rows = rng.binomial(n_rows, share, n_windows)
    seen = rng.binomial(n_texts, share if then is None else then, n_windows)
    bands = np.array([band(Promised(int(n_hits), n_rows), n_texts) for n_hits in rows])
    return float(((seen < bands[:, 0]) | (seen > bands[:, 1])).mean())


@pytest.mark.parametrize(
    ("share", "n_rows", "n_texts"),
    [(0.3, 2000, 1000), (0.3, 200, 1000), (0.1, 500, 1000), (0.1, 500, 150), (0.5, 100, 100)],
)
def test_texts_of_the_same_kind_raise_one_alarm_in_a_hundred(share, n_rows, n_texts):
    rate = alarm_rate(np.random.default_rng(1), share=share, n_rows=n_rows, n_texts=n_texts)
    assert OUTSIDE / 4 < rate < OUTSIDE * 1.6


@pytest.mark.parametrize(("share", "then"), [(0.1, 0.2), (0.3, 0.4), (0.3, 0.2)])
def test_a_share_that_shifted_is_found(share, then):
    rng = np.random.default_rng(2)
    assert alarm_rate(rng, share=share, n_rows=2000, n_texts=1000, then=then) > 0.95
