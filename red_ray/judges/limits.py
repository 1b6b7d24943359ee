"""What may be sent to a judge: how much at once, in a minute, and in all."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from red_ray.config import JudgeConfig, Price
from red_ray.types import Question

WINDOW_S = 60.0
MARGIN_S = 1.0
"""By so much one request may take longer to arrive than another; the limit holds at the server."""

_LOOK_AGAIN_S = 1.0
"""An answer that was shorter than reserved makes room before the oldest send leaves the window."""

_TOKENS_PER_BYTE = 0.5
_ANSWER_TOKENS = 64
_INSTRUCTIONS_BYTES = 700
"""Above what is usual: the first answers put the real figures in their place."""

_ROUNDING_USD = 1e-9  # what a sum of prices may be off by

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]


class BudgetUsedUpError(Exception):
    """No request is left; stays inside the pool."""


@dataclass(slots=True)
class Ticket:
    """A request that the rate let pass, its tokens as far as they are known, and when it left."""

    tokens: int
    counted: bool = True
    sent_s: float = math.inf


class RateLimit:
    """At most so many requests and tokens in any 60 s, first come first served.

    Counts the sends themselves: a leaky bucket of the same rate lets a burst of its whole size
    pass on top of what leaks.

    Args:
        requests: in any 60 s; None for no limit.
        tokens: in any 60 s; None for no limit.
        sleep: waits.
        clock: monotonic seconds.
    """

    def __init__(
        self, requests: int | None, tokens: int | None, *, sleep: Sleep, clock: Clock
    ) -> None:
        self._max_requests = requests
        self._max_tokens = tokens
        self._sleep = sleep
        self._clock = clock
        self._sent: deque[Ticket] = deque()
        self._n_pending = 0
        self._tokens = 0
        self._turn = asyncio.Lock()

    def rest(self) -> None:
        """Let a minute pass first: nobody knows what an earlier process has sent."""
        n_requests = self._max_requests or 1
        self.restore((0.0, (self._max_tokens or 0) // n_requests + 1) for _ in range(n_requests))

    def restore(self, sends: Iterable[tuple[float, int]]) -> None:
        """Count requests of an earlier process: their age in seconds, and their tokens."""
        now_s = self._clock()
        # A clock that was set back makes an age negative; nobody waits for it to catch up.
        earlier = [Ticket(tokens, sent_s=now_s - max(age_s, 0.0)) for age_s, tokens in sends]
        self._sent = deque(sorted([*earlier, *self._sent], key=lambda one: one.sent_s))
        self._tokens += sum(one.tokens for one in earlier)

    async def admit(self, tokens: int) -> Ticket:
        """Wait until a request of about `tokens` may leave; then it counts until it is over.

        One of more tokens than a minute has leaves when nothing else counts. Follow with `leaves`,
        or with `withdraw`. The minute begins when it leaves: what stands between may take longer
        than it should.
        """
        if self._max_requests is None and self._max_tokens is None:
            return Ticket(tokens, counted=False)
        if self._max_tokens is not None:
            tokens = min(tokens, self._max_tokens)
        async with self._turn:
            while (wait_s := self._wait_s(tokens)) > 0:
                await self._sleep(min(wait_s, _LOOK_AGAIN_S))
            self._n_pending += 1
            self._tokens += tokens
        return Ticket(tokens)

    def leaves(self, ticket: Ticket) -> None:
        """An admitted request leaves now."""
        if ticket.counted:
            ticket.sent_s = self._clock()
            self._n_pending -= 1
            self._sent.append(ticket)

    def withdraw(self, ticket: Ticket) -> None:
        """An admitted request does not leave after all."""
        if ticket.counted:
            self._n_pending -= 1
            self._tokens -= ticket.tokens

    def correct(self, ticket: Ticket, tokens: int) -> None:
        """Put the tokens that a request really took in place of the estimate."""
        if ticket.counted:
            self._tokens += tokens - ticket.tokens
        ticket.tokens = tokens

    def _wait_s(self, tokens: int) -> float:
        """How long until enough of the sends have left the window."""
        now_s = self._clock()
        self._forget(now_s - WINDOW_S - MARGIN_S)
        wait_s, n_left, tokens_left = 0.0, len(self._sent) + self._n_pending, self._tokens
        for oldest in self._sent:
            if self._fits(n_left + 1, tokens_left + tokens):
                return wait_s
            wait_s = oldest.sent_s + WINDOW_S + MARGIN_S - now_s
            n_left, tokens_left = n_left - 1, tokens_left - oldest.tokens
        if self._fits(n_left + 1, tokens_left + tokens):
            return wait_s
        # What is left is about to leave: nobody knows how long it will count.
        return max(wait_s, _LOOK_AGAIN_S)

    def _forget(self, until_s: float) -> None:
        while self._sent and self._sent[0].sent_s <= until_s:
            oldest = self._sent.popleft()
            oldest.counted = False
            self._tokens -= oldest.tokens

    def _fits(self, requests: int, tokens: int) -> bool:
        in_requests = self._max_requests is None or requests <= self._max_requests
        return in_requests and (self._max_tokens is None or tokens <= self._max_tokens)


@dataclass(slots=True)
class Spent:
    """Requests, tokens and USD; both as far as known, else as estimated."""

    requests: int = 0
    tokens: int = 0
    cost_usd: float = 0.0

    def add(self, requests: int, tokens: int, cost_usd: float) -> None:
        """Add up; negative numbers give back."""
        self.requests += requests
        self.tokens += tokens
        self.cost_usd += cost_usd


class Budget:
    """What a judge may cost in all: reserved before a request leaves, settled when it is over.

    Args:
        config: the budget.
        spent: by earlier processes.
    """

    def __init__(self, config: JudgeConfig, spent: Spent) -> None:
        self._config = config
        self._spent = spent
        self._n_open = 0
        self._settled = asyncio.Event()

    @property
    def is_used_up(self) -> bool:
        """Whether no request can follow, however small."""
        config, spent = self._config, self._spent
        return self._n_open == 0 and not (
            _below(spent.requests, config.budget_calls)
            and _below(spent.tokens, config.budget_tokens)
            and _below(spent.cost_usd + _ROUNDING_USD, config.budget_usd)
        )

    @property
    def spent(self) -> dict[str, float]:
        """Share of each limit that is spent or reserved, from 0 to 1; a limit of 0 is spent."""
        config, spent = self._config, self._spent
        limits = {
            "calls": (spent.requests, config.budget_calls),
            "tokens": (spent.tokens, config.budget_tokens),
            "usd": (spent.cost_usd, config.budget_usd),
        }
        return {
            name: min(1.0, used / limit) if limit else 1.0
            for name, (used, limit) in limits.items()
            if limit is not None
        }

    async def alone(self, is_known: Callable[[], bool]) -> None:
        """Let one request go at a time until it is known what one takes."""
        while self._n_open and not is_known():
            await self._settling()

    async def take(self, tokens: int, cost_usd: float) -> None:
        """Reserve a request; waits where one under way may turn out cheaper than reserved.

        Raises:
            BudgetUsedUpError: it does not fit any more.
        """
        while not self._fits(tokens, cost_usd):
            if self._n_open == 0 or not _below(self._spent.requests, self._config.budget_calls):
                raise BudgetUsedUpError
            await self._settling()
        self._n_open += 1
        self._spent.add(1, tokens, cost_usd)

    async def _settling(self) -> None:
        self._settled.clear()
        await self._settled.wait()

    def settle(self, tokens: int, cost_usd: float) -> None:
        """A request is over; add what it took beyond its reservation (below 0: gives back)."""
        self._n_open -= 1
        self._spent.add(0, tokens, cost_usd)
        self._settled.set()

    def give_back(self, tokens: int, cost_usd: float) -> None:
        """A request did not leave after all."""
        self._spent.add(-1, 0, 0.0)
        self.settle(-tokens, -cost_usd)

    def _fits(self, tokens: int, cost_usd: float) -> bool:
        config, spent = self._config, self._spent
        return (
            _below(spent.requests, config.budget_calls)
            and _within(spent.tokens + tokens, config.budget_tokens)
            and _within(spent.cost_usd + cost_usd - _ROUNDING_USD, config.budget_usd)
        )


class Estimate:
    """Tokens and price of a request before it leaves, learned from those that came back.

    As many tokens per byte, and as long an answer, as the largest seen: a limit in tokens or money
    is held if no answer is larger than all before it.

    Attributes:
        is_known: whether there was one to learn from.

    Args:
        price: of the model; None where it is not known.
        max_answer_tokens: where the server is told to stop.
        longest_answer: tokens of the longest one that an earlier process had.
        counts: whether the judge counts tokens at all.
    """

    def __init__(
        self,
        price: Price | None,
        *,
        max_answer_tokens: int | None,
        longest_answer: int = 0,
        counts: bool = True,
    ) -> None:
        self._price = price
        self._counts = counts
        self._per_byte = _TOKENS_PER_BYTE
        self._least = max(max_answer_tokens or 0, longest_answer)
        self._answer = self._least or _ANSWER_TOKENS
        self.is_known = not counts

    def tokens(self, question: Question) -> tuple[int, int]:
        """Of the prompt and of the answer."""
        if not self._counts:
            return 0, 0
        return round(self._per_byte * _n_bytes(question)) + 1, self._answer

    def learn(self, question: Question, prompt_tokens: int, answer_tokens: int) -> None:
        """Take in what a request came to; the first one replaces what was assumed."""
        if not prompt_tokens:
            self.is_known = True  # the server does not count: what was assumed has to do
            return
        per_byte = prompt_tokens / _n_bytes(question)
        if not self.is_known:
            self.is_known, self._per_byte = True, per_byte
            self._answer = self._least or answer_tokens
        self._per_byte = max(self._per_byte, per_byte)
        self._answer = max(self._answer, answer_tokens)

    def cost_usd(self, prompt_tokens: int, answer_tokens: int) -> float | None:
        """The price of so many tokens; None where it is not known."""
        if self._price is None:
            return None
        price = self._price
        return (prompt_tokens * price.input_usd + answer_tokens * price.output_usd) / 1e6


def _n_bytes(question: Question) -> int:
    parts = [question.text]
    for candidate in question.candidates:
        parts += (candidate.label, candidate.description, *candidate.examples)
    said = "".join(parts)
    n_escaped = 5 * said.count("<")  # sent as \u003c
    return len(said.encode("utf-8", "replace")) + n_escaped + _INSTRUCTIONS_BYTES


def _below(spent: float, budget: float | None) -> bool:
    return budget is None or spent < budget


def _within(spent: float, budget: float | None) -> bool:
    return budget is None or spent <= budget
