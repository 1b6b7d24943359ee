"""Asks a judge many questions at once, and none of them twice."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from red_ray.config import JudgeConfig
from red_ray.errors import (
    JudgeError,
    JudgeRefused,
    JudgeTimeout,
    JudgeUnavailable,
    SchemaRefused,
    StorageError,
)
from red_ray.judges.base import Judge, question_key
from red_ray.judges.breaker import RESUME, Breaker, JudgeAwayError
from red_ray.judges.ledger import Kept, Ledger, Received, Sent, Unsent
from red_ray.judges.limits import (
    MARGIN_S,
    WINDOW_S,
    Budget,
    BudgetUsedUpError,
    Clock,
    Estimate,
    RateLimit,
    Sleep,
    Spent,
    Ticket,
)
from red_ray.judges.prompts import presented
from red_ray.judges.retries import Attempts, RetryPolicy
from red_ray.judges.spec import is_here, price_of
from red_ray.judges.writer import LedgerWriter
from red_ray.types import HUMAN, WRITING, Outcome, Question, Reply, Verdict

_N_LATENCIES = 10_000  # the quantiles look back that far, so that memory stays flat
_QUEUE_PER_SLOT = 4  # waiting, in flight and being stored: enough that no slot is ever idle
_N_RECENT = 4_096  # answers kept at hand for callers who looked before they were stored
_COUNTING = ("ollama:", "openai:")
_ANSWERS = (Outcome.LABEL, Outcome.NONE)
_RESULTS = {JudgeTimeout: "timeout", JudgeRefused: "refused", SchemaRefused: "schema_refused"}

_Todo = deque[tuple[int, str, Question]]
_Done = asyncio.Queue[tuple[int, Verdict] | None]


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What the pool did since it was made.

    `requests` counts retries and failures, `results` the same by what came of them; `cached` are
    questions that the ledger or a person had answered, `answered` labels and nones bought.
    Latencies are of whole questions, from the first request to the outcome, failures included; 0
    before the first. `notice` is one line about a pause, else empty.
    """

    requests: int
    results: dict[str, int]
    answered: int
    cached: int
    unreadable: int
    timeouts: int
    errors: int
    in_flight: int
    waiting: int
    tokens: int
    cost_usd: float | None
    latency_p50_ms: float
    latency_p95_ms: float
    notice: str


@dataclass(slots=True)
class _Turn:
    """One call of the pool: its round, the verdicts there were when it looked, what is open."""

    asked_in: str
    seed: int
    replay: bool = False
    n_kept: int = 0
    n_open: int = 0


@dataclass(frozen=True, slots=True)
class _Sending:
    """A request that leaves."""

    sent: Sent
    ticket: Ticket


@dataclass(slots=True)
class _Shared:
    """A question being asked, and how many wait for it."""

    task: asyncio.Task[Verdict | None]
    n_waiting: int = 0


@dataclass(slots=True)
class _Counters:
    requests: int = 0
    cached: int = 0
    in_flight: int = 0
    open: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    results: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_N_LATENCIES))


class Limits:
    """What all pools of one judge share: slots, places in the queue, the rate and the breaker.

    Args:
        config: concurrency, rates and total time.
        sleep: waits.
        clock: monotonic seconds.
        rng: draws the jitter.
        again: what to do after a stop, when a judge that was away is back.
    """

    def __init__(
        self,
        config: JudgeConfig,
        *,
        sleep: Sleep = asyncio.sleep,
        clock: Clock = time.monotonic,
        rng: np.random.Generator | None = None,
        again: str = RESUME,
    ) -> None:
        self.sleep = sleep
        self.clock = clock
        self.rng = rng or np.random.default_rng()
        self.slots = asyncio.Semaphore(config.concurrency)
        self.n_places = config.queue or _QUEUE_PER_SLOT * config.concurrency
        self.places = asyncio.Semaphore(self.n_places)
        self.rate = RateLimit(
            config.requests_per_minute, config.tokens_per_minute, sleep=sleep, clock=clock
        )
        self.breaker = Breaker(
            config.total_time_s,
            config.concurrency,
            sleep=sleep,
            clock=clock,
            rng=self.rng,
            again=again,
        )


class ValidatorPool:
    """Puts questions to a judge: ledger first, then within its limits and the budget.

    A request is in the ledger before it leaves, and a verdict before anyone sees it. A time-out,
    an error and an answer that cannot be read stay outcomes of their own. One pool serves all who
    ask a judge over one ledger, on one event loop; it leaves closing the ledger to its maker.

    Args:
        judge: whom to ask.
        ledger: what was asked before.
        config: attempts, total time, budget and prices.
        seed: orders the candidates of each question.
        limits: shared with the judge's other pools; its own by default.

    Raises:
        ConfigError: there is a budget in money, and no price.
    """

    def __init__(
        self,
        judge: Judge,
        ledger: Ledger,
        config: JudgeConfig,
        *,
        seed: int = 0,
        limits: Limits | None = None,
    ) -> None:
        self._judge = judge
        self._ledger = ledger
        self._config = config
        self._seed = seed
        self._limits = limits or Limits(config)
        self._clock = self._limits.clock
        self._retries = RetryPolicy(config, clock=self._clock, rng=self._limits.rng)
        self._price = price_of(config)
        self._estimate = Estimate(
            self._price,
            max_answer_tokens=config.max_answer_tokens,
            longest_answer=ledger.longest_answer(judge.name),
            counts=(config.spec or "").startswith(_COUNTING),
        )
        limits_in_tokens = (config.tokens_per_minute, config.budget_tokens, config.budget_usd)
        self._limits_tokens = any(limit is not None for limit in limits_in_tokens)
        self._writer = LedgerWriter(ledger)
        self._asked: dict[str, _Shared] = {}
        self._runners: set[asyncio.Task[None]] = set()
        self._id = uuid.uuid4().hex
        self._n_sent = 0
        self._recent: dict[str, Verdict] = {}
        self._n_kept = 0
        self._count = _Counters()
        spent = ledger.spent(judge.name)
        self._budget = Budget(config, Spent(spent.requests, spent.tokens, spent.cost_usd))
        # An answer costs tokens, counted or estimated; a connection that was refused none.
        self._limits.breaker.is_unmet = is_here(judge.name) and not spent.tokens
        now = datetime.now(UTC)
        sends = ledger.sends_since(judge.name, now - timedelta(seconds=WINDOW_S + MARGIN_S))
        self._limits.rate.restore(((now - sent).total_seconds(), n) for sent, n in sends)

    @property
    def exhausted(self) -> bool:
        """Whether the budget is used up: questions that the ledger does not know stay unasked."""
        return self._budget.is_used_up

    @property
    def budget_spent(self) -> dict[str, float]:
        """Share of each limit of the budget that is spent or reserved; see `Budget.spent`."""
        return self._budget.spent

    def key(self, question: Question) -> str:
        """The key under which a verdict answers `question`."""
        return question_key(question, self._judge.name)

    def stats(self) -> PoolStats:
        """Counters, and what is under way."""
        count = self._count
        p50, p95 = np.quantile(count.latencies_ms or [0.0], [0.5, 0.95])
        return PoolStats(
            requests=count.requests,
            results=dict(count.results),
            answered=count.outcomes[Outcome.LABEL] + count.outcomes[Outcome.NONE],
            cached=count.cached,
            unreadable=count.outcomes[Outcome.UNREADABLE],
            timeouts=count.outcomes[Outcome.TIMEOUT],
            errors=count.outcomes[Outcome.ERROR],
            in_flight=count.in_flight,
            waiting=count.open - count.in_flight,
            tokens=count.tokens,
            cost_usd=None if self._price is None else count.cost_usd,
            latency_p50_ms=float(p50),
            latency_p95_ms=float(p95),
            notice=self._limits.breaker.notice,
        )

    async def validate(
        self,
        questions: Iterable[Question],
        *,
        asked_in: str = "",
        replay: bool = False,
        seed: int | None = None,
    ) -> list[Verdict]:
        """The verdicts on `questions`, in their order.

        A question that the budget did not reach has no verdict; `Verdict.key` tells which. Of
        equal questions one carries the requests.

        Args:
            questions: to ask.
            asked_in: names the round of a run: its id, a slash, the round.
            replay: whether a question that failed in this round has failed, as in a round that a
                resumed run had finished; else it is asked again.
            seed: orders the candidates of each question; the pool's own by default.

        Raises:
            JudgeRefused: the judge refuses all requests; the rest is cancelled.
            JudgeUnavailable: nobody had an answer for longer than `total_time_s`.
            StorageError: a verdict could not be stored.
        """
        turn = _Turn(asked_in, self._seed if seed is None else seed, replay)
        async with aclosing(self._numbered(questions, turn)) as numbered:
            verdicts = [item async for item in numbered]
        return [verdict for _, verdict in sorted(verdicts, key=lambda item: item[0])]

    async def stream(
        self, questions: Iterable[Question], *, asked_in: str = ""
    ) -> AsyncGenerator[Verdict, None]:
        """As `validate`, each verdict as soon as it is stored; what is not awaited is cancelled."""
        async with aclosing(self._numbered(questions, _Turn(asked_in, self._seed))) as numbered:
            async for _, verdict in numbered:
                yield verdict

    async def close(self) -> None:
        """Cancel what is under way and close the judge; the ledger stays open."""
        for runner in self._runners:
            runner.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)
        await self._judge.close()
        await self._writer.close()

    async def _numbered(
        self, questions: Iterable[Question], turn: _Turn
    ) -> AsyncGenerator[tuple[int, Verdict], None]:
        """Positions and verdicts as they come.

        The tasks live beside this generator, not in it: a task group around a `yield` would
        cancel its consumer.
        """
        done: _Done = asyncio.Queue()
        runner = asyncio.create_task(self._run(list(questions), turn, done))
        runner.add_done_callback(lambda _: done.put_nowait(None))
        self._runners.add(runner)
        try:
            while (item := await done.get()) is not None:
                yield item
            await runner
        finally:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)
            self._runners.discard(runner)

    async def _run(self, questions: Sequence[Question], turn: _Turn, done: _Done) -> None:
        """Hand out what the ledger knows, then ask the rest."""
        turn.n_kept = self._n_kept
        known = await self._writer.read(self._known, questions, turn)
        todo: _Todo = deque()
        for position, (key, verdict) in enumerate(known):
            if verdict is None:
                todo.append((position, key, questions[position]))
            else:
                self._count.cached += 1
                done.put_nowait((position, verdict))
        await self._ask_all(todo, turn, done)

    def _known(
        self, questions: Sequence[Question], turn: _Turn
    ) -> list[tuple[str, Verdict | None]]:
        """Keys, and what a person or the ledger says; blocking."""
        keys = [self.key(question) for question in questions]
        verdicts = self._ledger.get_many(keys, asked_in=turn.asked_in, replay=turn.replay)
        people = self._ledger.humans_of([question.text for question in questions])
        found: list[tuple[str, Verdict | None]] = []
        for key, question in zip(keys, questions, strict=True):
            if question.text in people and question.mode not in WRITING:
                found.append((key, _by_a_person(key, question, people[question.text])))
            else:
                found.append((key, verdicts.get(key)))
        return found

    async def _ask_all(self, todo: _Todo, turn: _Turn, done: _Done) -> None:
        """Work off `todo` with as many workers as the queue has places, however long it is."""
        turn.n_open = len(todo)
        self._count.open += turn.n_open
        n_workers = min(self._limits.n_places, len(todo))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(n_workers):
                    group.create_task(self._work(todo, turn, done))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the one that stopped the others
        finally:
            self._count.open -= turn.n_open

    async def _work(self, todo: _Todo, turn: _Turn, done: _Done) -> None:
        while todo:
            async with self._limits.places:
                if not todo:
                    return
                position, key, question = todo.popleft()
                verdict = await self._share(key, question, turn)
            turn.n_open -= 1
            self._count.open -= 1
            if verdict is not None:
                done.put_nowait((position, verdict))

    async def _share(self, key: str, question: Question, turn: _Turn) -> Verdict | None:
        """Join the call that asks this already, or start it; the last to leave cancels it."""
        shared = self._asked.get(key)
        joined = shared is not None
        if shared is None:
            answer = asyncio.create_task(self._answer(key, question, turn))
            shared = self._asked[key] = _Shared(answer)
        shared.n_waiting += 1
        try:
            verdict = await asyncio.shield(shared.task)
        finally:
            shared.n_waiting -= 1
            if not shared.n_waiting:
                self._asked.pop(key)
                shared.task.cancel()
                await asyncio.wait([shared.task])
        return replace(verdict, requests=0) if joined and verdict else verdict

    async def _answer(self, key: str, question: Question, turn: _Turn) -> Verdict | None:
        """What another caller got since this one looked, or ask."""
        known = self._recent.get(key)
        if known is None and self._n_kept - turn.n_kept > _N_RECENT:
            known = (await self._writer.read(self._known, [question], turn))[0][1]
        if known is not None:
            self._count.cached += 1
            return replace(known, requests=0)
        return None if self.exhausted else await self._ask(key, question, turn)

    async def _ask(self, key: str, question: Question, turn: _Turn) -> Verdict | None:
        """Ask until there is an outcome, and store it; None where no request was left."""
        attempts = Attempts()
        asked_in, shown = turn.asked_in, presented(question, key, turn.seed)
        try:
            await self._request(key, shown, attempts, asked_in)
            while (wait_s := self._retries.wait_s(attempts)) is not None:
                await self._limits.sleep(wait_s)
                await self._request(key, shown, attempts, asked_in)
        except (JudgeRefused, JudgeAwayError, asyncio.CancelledError) as error:
            # What it has cost is kept, and the next run may ask it again. Not waited for: until
            # the error is out the others go on asking.
            self._writer.put(*attempts.received)
            if isinstance(error, JudgeAwayError):
                raise JudgeUnavailable(str(error)) from error
            raise
        except BudgetUsedUpError:
            if attempts.last is None:
                return None
        return await self._keep(key, question, attempts, asked_in)

    async def _request(
        self, key: str, question: Question, attempts: Attempts, asked_in: str
    ) -> None:
        """One request, when its turn comes: in the ledger before it leaves.

        What came of it is `attempts.last`; only what stops the run is raised.
        """
        entered_s = self._clock()
        async with self._limits.slots, self._limits.breaker.passage() as is_probe:
            try:
                sending = await self._take_leave(key, question, asked_in)
            except JudgeError as error:  # it never may
                attempts.last = error
                return
            sent_s = self._clock()
            if attempts.started_s is None:
                attempts.started_s = sent_s
            else:
                attempts.paused_s += sent_s - entered_s
            attempts.requests += 1
            came: Reply | JudgeError | None = None
            self._count.in_flight += 1
            try:
                came = await self._judge.ask(question, attempts.complaint)
            except JudgeError as error:
                came = error
            finally:
                self._count.in_flight -= 1
                self._settle(sending, came, attempts, sent_s)
        # A request that finds out how to ask, or whether the judge is back, is no try.
        attempts.n_tries += not is_probe and not isinstance(came, SchemaRefused)
        if isinstance(came, Reply):
            self._limits.breaker.answered()
            self._estimate.learn(question, came.prompt_tokens, came.completion_tokens)
            attempts.add(came)
        elif came is not None:  # a cancellation has left already
            attempts.last = came
            self._limits.breaker.failed(came, key, sent_s)
            if isinstance(came, JudgeRefused):
                raise came

    async def _take_leave(self, key: str, question: Question, asked_in: str) -> _Sending:
        """Reserve the budget, wait for the rate, and commit that the request leaves."""
        if self._limits_tokens:
            await self._budget.alone(lambda: self._estimate.is_known)
        tokens = self._estimate.tokens(question)
        self._check_fits(tokens[0])
        cost_usd = self._estimate.cost_usd(*tokens)
        n_tokens = sum(tokens)
        await self._budget.take(n_tokens, cost_usd or 0.0)
        try:
            # After the budget: a ticket is for now, and the budget may keep it waiting.
            ticket = await self._limits.rate.admit(n_tokens)
            sent = await self._commit_send(key, asked_in, n_tokens, cost_usd, ticket)
        except (asyncio.CancelledError, StorageError, JudgeError):
            self._budget.give_back(n_tokens, cost_usd or 0.0)
            raise
        # Counted before it leaves: whatever becomes of it, it may have been paid for.
        self._count.requests += 1
        self._limits.rate.leaves(ticket)
        return _Sending(sent, ticket)

    def _check_fits(self, prompt_tokens: int) -> None:
        limit = self._config.tokens_per_minute
        if limit is not None and self._estimate.is_known and prompt_tokens > limit:
            raise JudgeError(
                f"a prompt of about {prompt_tokens!r} tokens is over judge.tokens_per_minute="
                f"{limit!r}; raise it, or lower max_chars"
            )

    async def _commit_send(
        self, key: str, asked_in: str, n_tokens: int, cost_usd: float | None, ticket: Ticket
    ) -> Sent:
        self._n_sent += 1
        number = f"{self._id}-{self._n_sent:x}"
        now = datetime.now(UTC)
        sent = Sent(number, key, self._judge.name, asked_in, now, n_tokens, cost_usd)
        try:
            await self._writer.write(sent)
        except (asyncio.CancelledError, StorageError):
            self._limits.rate.withdraw(ticket)
            with suppress(StorageError):
                await self._writer.write(Unsent(number))
            raise
        return sent

    def _settle(
        self,
        sending: _Sending,
        came: Reply | JudgeError | None,
        attempts: Attempts,
        sent_s: float,
    ) -> None:
        """Put what a request really took in place of what was reserved for it."""
        sent = sending.sent
        if came is None:  # cancelled: nobody will know, and the estimate stands
            self._budget.settle(0, 0.0)
            return
        prompt = came.prompt_tokens if isinstance(came, Reply) else 0
        answer = came.completion_tokens if isinstance(came, Reply) else 0
        kept_estimate = not prompt + answer and _may_be_paid_for(came)
        n_tokens = sent.tokens if kept_estimate else prompt + answer
        cost_usd = sent.cost_usd if kept_estimate else self._estimate.cost_usd(prompt, answer)
        self._limits.rate.correct(sending.ticket, n_tokens)
        self._budget.settle(n_tokens - sent.tokens, (cost_usd or 0.0) - (sent.cost_usd or 0.0))
        result = _result(came)
        latency_ms = (self._clock() - sent_s) * 1000
        attempts.received.append(
            Received(sent.id, result, prompt, answer, cost_usd, latency_ms, kept_estimate)
        )
        if cost_usd is not None:
            attempts.cost_usd = (attempts.cost_usd or 0.0) + cost_usd
        self._count.results[result] += 1
        self._count.tokens += n_tokens
        self._count.cost_usd += cost_usd or 0.0

    async def _keep(
        self, key: str, question: Question, attempts: Attempts, asked_in: str
    ) -> Verdict:
        """Commit the outcome, then count it."""
        verdict = self._verdict(key, attempts)
        await self._writer.write(*attempts.received, Kept(verdict, question, asked_in))
        self._n_kept += 1
        self._count.outcomes[verdict.outcome] += 1
        self._count.latencies_ms.append(verdict.latency_ms)
        if verdict.outcome in _ANSWERS:
            self._recent[key] = verdict
            if len(self._recent) > _N_RECENT:
                del self._recent[next(iter(self._recent))]
        return verdict

    def _verdict(self, key: str, attempts: Attempts) -> Verdict:
        last = attempts.last
        reply = last if isinstance(last, Reply) else Reply(_failed(last))
        return Verdict(
            key=key,
            outcome=reply.outcome,
            label=reply.label,
            judge=self._judge.name,
            requests=attempts.requests,
            latency_ms=attempts.busy_s(self._clock()) * 1000,
            prompt_tokens=attempts.prompt_tokens,
            completion_tokens=attempts.completion_tokens,
            error=reply.reason if last is reply else f"{type(last).__name__}: {last}",
            cost_usd=attempts.cost_usd,
            version=reply.version,
        )


def _by_a_person(key: str, question: Question, label: str | None) -> Verdict:
    """What a person said of the text outranks any judge, and may be none of the candidates."""
    if question.mode == "verify" and label != question.candidates[0].label:
        label = None
    outcome = Outcome.NONE if label is None else Outcome.LABEL
    return Verdict(key, outcome, label, judge=HUMAN, requests=0, latency_ms=0.0)


def _failed(error: JudgeError | None) -> Outcome:
    return Outcome.TIMEOUT if isinstance(error, JudgeTimeout) else Outcome.ERROR


def _result(came: Reply | JudgeError) -> str:
    """The word under which a request is counted."""
    if isinstance(came, Reply):
        return came.outcome.value
    if isinstance(came, JudgeUnavailable):
        return came.result
    return _RESULTS.get(type(came), "error")


def _may_be_paid_for(came: Reply | JudgeError) -> bool:
    """Whether the server may have done the work: an answer, or none where one was on its way."""
    if isinstance(came, JudgeUnavailable):
        return came.result == "unreachable" and not came.never_left
    return isinstance(came, Reply | JudgeTimeout)
