"""The validator pool actor: asks one judge for all who need it, and keeps their ledgers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from red_ray.actors import logs
from red_ray.actors.metrics import REFRESH_S, PoolMeter
from red_ray.config import JudgeConfig
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.errors import ConfigError
from red_ray.judges import Judge, Ledger, Limits, PoolStats, ValidatorPool, make_judge
from red_ray.judges.ledger import Lease
from red_ray.judges.neighbours import Votes
from red_ray.types import Question, Verdict

LEASE_S = 30.0
"""How long a pool waits for the one before it to end: a killed one still has its last moments."""

SHARED = (
    "spec",
    "temperature",
    "concurrency",
    "queue",
    "requests_per_minute",
    "tokens_per_minute",
    "total_time_s",
)
"""Keys that all who share a judge's pool must agree on."""

BUDGETED = (
    "budget_calls",
    "budget_tokens",
    "budget_usd",
    "prices",
    "max_attempts",
    "max_answer_tokens",
    "timeout_s",
    "key_variable",
)
"""Keys that all who ask the judge over one ledger must agree on."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who asks, under which budget, and over which ledger.

    Attributes:
        config: of the judge.
        ledger: file or URL.
        seed: orders the candidates of each question.
        user: who asks; whoever has the same ledger shares its budget.
        node: machine of a ledger that is a file; empty for a database.
        run: name of the run, for metrics and logs.
    """

    config: JudgeConfig
    ledger: str
    seed: int
    user: str = ""
    node: str = ""
    run: str = ""


@dataclass(slots=True)
class _Desk:
    """One ledger's pool, and what each user has under way at it."""

    judge: Judge
    ledger: Ledger
    lease: Lease
    pool: ValidatorPool
    config: JudgeConfig
    users: dict[str, set[asyncio.Task[Any]]]
    meter: PoolMeter

    def tell(self) -> None:
        """Tell Prometheus what is new."""
        self.meter.tell(self.pool.stats(), self.pool.budget_spent)


class ValidatorPoolActor:
    """The async validator pool of one judge.

    Holds nothing that a restart could lose: it opens a ledger when a call names it, and what it
    did is in there.

    Args:
        limits: the judge's; all who ask it share them.
        examples: labelled rows, for the judge `neighbours`.
        hidden: labels that only the simulated judge may see.
    """

    def __init__(
        self, limits: JudgeConfig, examples: LabelledRows, hidden: HiddenLabels | None
    ) -> None:
        logs.begin("")
        self._limits_of = limits
        self._limits: Limits | None = None
        self._examples = examples
        self._hidden = hidden
        self._desks: dict[str, _Desk] = {}
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._telling: asyncio.Task[None] | None = None

    async def open(self, account: Account) -> str:
        """Open the judge and the ledger; the judge's name, part of every question's key."""
        # Not in the constructor: what it raises there, Ray keeps as text alone.
        return (await self._desk(account)).judge.name

    async def validate(
        self, account: Account, questions: Sequence[Question], asked_in: str, replay: bool
    ) -> list[Verdict]:
        """See `ValidatorPool.validate`."""
        desk = await self._desk(account)
        _, _, number = asked_in.rpartition("/")
        logs.tell(run=account.run, iteration=int(number) if number.isdigit() else None)
        asking = asyncio.ensure_future(
            desk.pool.validate(questions, asked_in=asked_in, replay=replay, seed=account.seed)
        )
        desk.users[account.user].add(asking)
        try:
            return await asking
        finally:
            asking.cancel()
            desk.users.get(account.user, set()).discard(asking)

    async def stats(self, account: Account) -> PoolStats:
        """What the pool did so far; see `ValidatorPool.stats`."""
        return (await self._desk(account)).pool.stats()

    async def close(self, account: Account) -> None:
        """End what a user has under way; the last one closes the ledger."""
        desk = self._desks.get(account.ledger)
        if desk is None:
            return
        asking = desk.users.pop(account.user, set())
        for call in asking:
            call.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        if not desk.users and self._desks.pop(account.ledger, None) is not None:
            await desk.pool.close()
            desk.tell()
            desk.lease.release()
            desk.ledger.close()
        if not self._desks and self._telling is not None:
            self._telling.cancel()
            self._telling = None

    async def _desk(self, account: Account) -> _Desk:
        self._check_same(self._limits_of, account.config, SHARED)
        async with self._opening[account.ledger]:
            desk = self._desks.get(account.ledger)
            if desk is None:
                desk = self._desks[account.ledger] = await self._opened(account)
        self._check_same(desk.config, account.config, BUDGETED)
        desk.users.setdefault(account.user, set())
        return desk

    async def _opened(self, account: Account) -> _Desk:
        here = ray.get_runtime_context().get_node_id()
        if account.node not in ("", here):
            raise ConfigError(
                f"the pool of judge {account.config.spec!r} runs on another machine, which cannot "
                "write this ledger; name a database that both reach in judge.ledger"
            )
        judge = make_judge(
            account.config,
            seed=account.seed,
            hidden=self._hidden.of if self._hidden else None,
            votes=self._votes(),
        )
        ledger = await asyncio.to_thread(Ledger, account.ledger)
        try:
            lease = await asyncio.to_thread(ledger.lease, judge.name, wait_s=LEASE_S)
            limits = self._judges_limits(account.config)
            pool = ValidatorPool(judge, ledger, account.config, seed=account.seed, limits=limits)
        except BaseException:
            ledger.close()
            raise
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell())
        meter = PoolMeter(str(account.config.spec), account.run)
        return _Desk(judge, ledger, lease, pool, account.config, {}, meter)

    async def _tell(self) -> None:
        while True:
            for desk in self._desks.values():
                desk.tell()
            await asyncio.sleep(REFRESH_S)

    def _judges_limits(self, config: JudgeConfig) -> Limits:
        if self._limits is None:
            self._limits = Limits(config)
            if ray.get_runtime_context().was_current_actor_reconstructed:
                self._limits.rate.rest()  # other ledgers may have requests of the last minute
        return self._limits

    def _votes(self) -> Votes | None:
        if not len(self._examples):
            return None
        # Not above: a pool that comes back after a crash need not wait for scikit-learn.
        from red_ray.judges.votes import lexical_votes

        return lexical_votes(self._examples.texts, self._examples.labels)

    def _check_same(self, one: JudgeConfig, other: JudgeConfig, keys: Sequence[str]) -> None:
        for key in keys:
            ours, theirs = getattr(one, key), getattr(other, key)
            if ours != theirs:
                raise ConfigError(
                    f"the pool of judge {one.spec!r} runs with judge.{key}={ours!r}, and this "
                    f"asks for {theirs!r}: use the same value, or wait until the other has ended"
                )
