"""Live rates: what each replica did, and all of them together."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil, log

from scipy.stats import betabinom

from red_ray.judges import PoolStats
from serve.schemas import RATE_SPAN_S, EscalationRate, RatePoint, Stats

Clock = Callable[[], float]

N_SPANS = 60
"""Spans that are kept: ten minutes, which the page shows."""

RATE_S = 60
"""Time over which texts per second are counted: less would jump, more would lag."""

WINDOW_TEXTS = 1000
"""The last texts whose escalations are compared with what was promised, however long ago they were:
few enough to notice a change, enough to tell a share to three points."""

MIN_TEXTS = 100
"""Fewer raise no alarm."""

OUTSIDE = 0.01
"""Share of windows outside the band where nothing has changed."""

GONE_S = 10.0
"""A replica that was not heard of for so long is none any more; each reports every second."""

LEAST_MS, STEP, N_BINS = 0.1, 1.05, 331
"""Latencies are counted in bins, each 5 % longer than the one before, up to a quarter of an hour:
a quantile is right to 2.5 %."""


@dataclass(frozen=True, slots=True)
class Promised:
    """What calibration expects: so many of its rows would be escalated by this bundle.

    `is_estimate`: they are the training's own rows, by models that had not seen them.
    """

    n_escalated: int
    n_rows: int
    bundle: str = ""
    is_estimate: bool = False

    @property
    def share(self) -> float:
        """Share of texts that are expected to be escalated."""
        return self.n_escalated / self.n_rows


@dataclass(slots=True)
class Span:
    """Counts of `RATE_SPAN_S` seconds; `latencies` by bin."""

    requests: int = 0
    texts: int = 0
    escalated: int = 0
    errors: int = 0
    latencies: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Escalations:
    """Texts that the judge was to be asked about where the model says so.

    `span` is the one in which they came, `bundle` what answered.
    """

    span: int
    bundle: str
    n_texts: int
    n_escalated: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a replica counted, to be sent elsewhere.

    Attributes:
        replica: its id.
        started_at, taken_at: seconds since 1970.
        requests: calls, failed and refused ones included.
        texts: that were decided on.
        errors: calls that failed.
        refused: calls that were not taken in.
        decisions, sources: texts by what became of them.
        spans: the last `N_SPANS`, by number; empty ones are left out.
        window: the last escalations, oldest first.
        batches: batches that went through the model, by their texts.
        steps: seconds by step, of batches (`encode`, `evidence`) and of calls (the others).
        promised: what calibration expects of the bundle that answers; not counted here.
    """

    replica: str
    started_at: float
    taken_at: float
    requests: int
    texts: int
    errors: int
    refused: int
    decisions: Mapping[str, int]
    sources: Mapping[str, int]
    spans: Mapping[int, Span]
    window: tuple[Escalations, ...]
    batches: Mapping[int, int] = field(default_factory=dict)
    steps: Mapping[str, float] = field(default_factory=dict)
    promised: Promised | None = None


class Rates:
    """Counts what one replica does; for one event loop, in a memory that does not grow.

    Args:
        replica: its id, of its own for each start.
        clock: seconds since 1970: spans of all replicas begin together.
    """

    def __init__(self, replica: str, *, clock: Clock = time.time) -> None:
        self._replica = replica
        self._clock = clock
        self._started_at = clock()
        self._requests = self._texts = self._errors = self._refused = 0
        self._decisions: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._spans: dict[int, Span] = {}
        self._window: deque[Escalations] = deque()
        self._n_in_window = 0
        self._batches: Counter[int] = Counter()
        self._steps: dict[str, float] = {}

    def add(
        self,
        *,
        decisions: Sequence[str],
        sources: Sequence[str],
        n_escalated: int,
        is_auto: bool,
        bundle: str,
    ) -> None:
        """Count a call that was answered.

        Args:
            decisions: on its texts.
            sources: whose decisions they are.
            n_escalated: of the texts, those that the model itself does not answer.
            is_auto: whether the model chose about which of them to ask.
            bundle: the model's.
        """
        span, n_texts = self._now(), len(decisions)
        self._requests += 1
        self._texts += n_texts
        self._decisions.update(decisions)
        self._sources.update(sources)
        counts = self._span(span)
        counts.requests += 1
        counts.texts += n_texts
        counts.escalated += n_escalated
        if is_auto and n_texts:
            self._escalated(Escalations(span, bundle, n_texts, n_escalated))

    def latency(self, latency_ms: float) -> None:
        """Count how long a call took that was answered."""
        self._span(self._now()).latencies[_bin(latency_ms)] += 1

    def batch(self, n_texts: int, **steps_ms: float) -> None:
        """Count texts that went through the model together, and how long each step took."""
        self._batches[n_texts] += 1
        self.steps(**steps_ms)

    def steps(self, **steps_ms: float) -> None:
        """Add to the time of steps."""
        for name, ms in steps_ms.items():
            self._steps[name] = self._steps.get(name, 0.0) + ms / 1e3

    def error(self) -> None:
        """Count a call that failed."""
        counts = self._refuse()
        self._errors += 1
        counts.errors += 1

    def refusal(self) -> None:
        """Count a call that was not taken in."""
        self._refuse()
        self._refused += 1

    def snapshot(self, promised: Promised | None = None) -> Snapshot:
        """All that was counted up to now, with what the bundle that answers promised."""
        return Snapshot(
            replica=self._replica,
            started_at=self._started_at,
            taken_at=self._clock(),
            requests=self._requests,
            texts=self._texts,
            errors=self._errors,
            refused=self._refused,
            decisions=dict(self._decisions),
            sources=dict(self._sources),
            spans={
                at: replace(span, latencies=span.latencies.copy())
                for at, span in self._spans.items()
            },
            window=tuple(self._window),
            batches=dict(self._batches),
            steps=dict(self._steps),
            promised=promised,
        )

    def _now(self) -> int:
        return int(self._clock() // RATE_SPAN_S)

    def _span(self, at: int) -> Span:
        if at not in self._spans:
            self._spans[at] = Span()
            # Not by order: a clock that is put back makes a span that is older than others.
            for old in [one for one in self._spans if one <= at - N_SPANS]:
                del self._spans[old]
            while len(self._spans) > N_SPANS:
                del self._spans[next(iter(self._spans))]
        return self._spans[at]

    def _refuse(self) -> Span:
        counts = self._span(self._now())
        self._requests += 1
        counts.requests += 1
        return counts

    def _escalated(self, new: Escalations) -> None:
        last = self._window[-1] if self._window else None
        if last is not None and (last.span, last.bundle) == (new.span, new.bundle):
            self._window[-1] = replace(
                last,
                n_texts=last.n_texts + new.n_texts,
                n_escalated=last.n_escalated + new.n_escalated,
            )
        else:
            self._window.append(new)
        self._n_in_window += new.n_texts
        while self._n_in_window - self._window[0].n_texts >= WINDOW_TEXTS:
            self._n_in_window -= self._window.popleft().n_texts


class Board:
    """What all replicas told last.

    A replica that is gone goes on counting with what it told; what it did in the last ten minutes
    as well, until these are over. What it did after its last report is lost, and where this board
    is lost, so is what replicas did that are gone.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, *, clock: Clock = time.time) -> None:
        self._clock = clock
        self._snapshots: dict[str, Snapshot] = {}

    def put(self, snapshot: Snapshot) -> None:
        """Take what a replica tells."""
        now = self._clock()
        # The time is ours: that of another machine may differ.
        self._snapshots[snapshot.replica] = replace(snapshot, taken_at=now)
        for name, one in self._snapshots.items():
            if one.spans and now - one.taken_at > N_SPANS * RATE_SPAN_S:
                self._snapshots[name] = replace(one, spans={}, window=())

    def escalation(self, promised: Promised | None) -> EscalationRate:
        """How many of the last texts were escalated, of all replicas together."""
        return _escalation(self._snapshots.values(), promised)

    def stats(self, promised: Promised | None, judge: PoolStats | None) -> Stats:
        """All of it together; see `merged`."""
        return merged(self._snapshots.values(), now=self._clock(), promised=promised, judge=judge)


def merged(
    snapshots: Iterable[Snapshot],
    *,
    now: float,
    promised: Promised | None,
    judge: PoolStats | None,
) -> Stats:
    """The rates of all replicas together.

    Args:
        snapshots: the last of each replica, of those that are gone too.
        now: seconds since 1970.
        promised: by the bundle that answers; texts that another one answered are not compared.
        judge: what was asked.
    """
    all_ = list(snapshots)
    started_at = min((one.started_at for one in all_), default=now)
    spans = _together(all_, now, started_at)
    latencies = sum((span.latencies for span in spans.values()), Counter[int]())
    return Stats(
        started_at=_moment(started_at),
        replicas=sum(now - one.taken_at <= GONE_S for one in all_),
        requests=sum(one.requests for one in all_),
        texts=sum(one.texts for one in all_),
        errors=sum(one.errors for one in all_),
        refused=sum(one.refused for one in all_),
        decisions=_sums(one.decisions for one in all_),
        sources=_sums(one.sources for one in all_),
        texts_per_s=_texts_per_s(spans, now, started_at),
        p50_ms=_quantile_ms(latencies, 0.5),
        p99_ms=_quantile_ms(latencies, 0.99),
        escalation=_escalation(all_, promised),
        judge=None if judge is None else asdict(judge),
        history=[_point(at, span) for at, span in spans.items()],
    )


@lru_cache(maxsize=1024)
def band(promised: Promised, n_texts: int) -> tuple[int, int]:
    """Between which counts of `n_texts` texts the escalated ones are, but for `OUTSIDE` of cases.

    The promise is itself a count over rows: given it, the share has a beta distribution, by
    Jeffreys' prior, and the count of new texts a beta-binomial one. Both are of independent texts:
    the same text a hundred times is a hundred times as sure to leave the band.
    """
    hits, misses = promised.n_escalated, promised.n_rows - promised.n_escalated
    found = betabinom(n_texts, hits + 0.5, misses + 0.5)
    return int(found.ppf(OUTSIDE / 2)), int(found.ppf(1 - OUTSIDE / 2))


def _escalation(snapshots: Iterable[Snapshot], promised: Promised | None) -> EscalationRate:
    n_texts, n_escalated = _window(snapshots, None if promised is None else promised.bundle)
    is_estimate = promised is not None and promised.is_estimate
    share = n_escalated / n_texts if n_texts else None
    if promised is None or not n_texts:
        return EscalationRate(
            share=share,
            n_texts=n_texts,
            promised=None if promised is None else promised.share,
            estimate=is_estimate,
            low=None,
            high=None,
            alarm=False,
        )
    low, high = band(promised, n_texts)
    return EscalationRate(
        share=share,
        n_texts=n_texts,
        promised=promised.share,
        estimate=is_estimate,
        low=low / n_texts,
        high=high / n_texts,
        alarm=n_texts >= MIN_TEXTS and not low <= n_escalated <= high,
    )


def _window(snapshots: Iterable[Snapshot], bundle: str | None) -> tuple[int, int]:
    """The last texts, `WINDOW_TEXTS` or a few more, and how many of them were escalated."""
    found = [one for snapshot in snapshots for one in snapshot.window]
    n_texts = n_escalated = 0
    for one in sorted(found, key=lambda one: one.span, reverse=True):
        if bundle in (None, one.bundle):
            n_texts += one.n_texts
            n_escalated += one.n_escalated
        if n_texts >= WINDOW_TEXTS:
            break
    return n_texts, n_escalated


def _together(snapshots: Sequence[Snapshot], now: float, started_at: float) -> dict[int, Span]:
    """The last spans of all replicas, oldest first, those without a call among them."""
    newest = int(now // RATE_SPAN_S)
    oldest = max(newest - N_SPANS + 1, int(started_at // RATE_SPAN_S))
    spans = {at: Span() for at in range(oldest, newest + 1)}
    for snapshot in snapshots:
        for at in snapshot.spans.keys() & spans.keys():
            one, total = snapshot.spans[at], spans[at]
            total.requests += one.requests
            total.texts += one.texts
            total.escalated += one.escalated
            total.errors += one.errors
            total.latencies.update(one.latencies)
    return spans


def _texts_per_s(spans: Mapping[int, Span], now: float, started_at: float) -> float:
    first = int(now // RATE_SPAN_S) - RATE_S // RATE_SPAN_S
    n_texts = sum(span.texts for at, span in spans.items() if at >= first)
    return n_texts / max(1.0, now - max(started_at, first * RATE_SPAN_S))


def _point(at: int, span: Span) -> RatePoint:
    return RatePoint(
        at=_moment(at * RATE_SPAN_S),
        requests=span.requests,
        texts=span.texts,
        escalated=span.escalated,
        errors=span.errors,
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _sums(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def _bin(latency_ms: float) -> int:
    if latency_ms <= LEAST_MS:
        return 0
    return min(N_BINS - 1, int(log(latency_ms / LEAST_MS) / log(STEP)))


def _quantile_ms(latencies: Counter[int], quantile: float) -> float | None:
    """The middle of the bin in which the quantile lies; None without any."""
    rank = ceil(quantile * latencies.total())
    for at in sorted(latencies):
        rank -= latencies[at]
        if rank <= 0:
            return float(LEAST_MS * STEP ** (at + 0.5))
    return None
