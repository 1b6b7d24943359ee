"""The validator pool actor: asks one judge for all who need it, and keeps their ledgers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from red_ray.config import JudgeConfig
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.errors import ConfigError
from red_ray.judges import Judge, Ledger, Limits, PoolStats, ValidatorPool, make_judge
from red_ray.judges.neighbours import Votes
from red_ray.types import Question, Verdict

LEASE_S = 20.0
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


@dataclass(frozen=True, slots=True)
class Account:
    """Under whose budget, and over which ledger, a question is asked."""

    config: JudgeConfig
    ledger: str
    seed: int

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes two accounts the same."""
        return self.config.model_dump_json(), self.ledger, self.seed


_Opened = tuple[Judge, Ledger, ValidatorPool]


class ValidatorPoolActor:
    """The async validator pool of one judge.

    Holds nothing that a restart could lose: it opens an account when a call names it, and what
    it did is in the account's ledger.

    Args:
        limits: the judge's; every account shares them.
        examples: labelled rows, for the judge `neighbours`.
        hidden: labels that only the simulated judge may see.
    """

    def __init__(
        self, limits: JudgeConfig, examples: LabelledRows, hidden: HiddenLabels | None
    ) -> None:
        self._limits_of = limits
        self._limits: Limits | None = None
        self._examples = examples
        self._hidden = hidden
        self._open: dict[tuple[str, str, int], _Opened] = {}
        self._opening = asyncio.Lock()

    async def open(self, account: Account) -> str:
        """Open the judge and the ledger; the judge's name, part of every question's key."""
        # Not in the constructor: what it raises there, Ray keeps as text alone.
        return (await self._account(account))[0].name

    async def validate(
        self, account: Account, questions: Sequence[Question], asked_in: str, replay: bool
    ) -> list[Verdict]:
        """See `ValidatorPool.validate`."""
        _, _, pool = await self._account(account)
        return await pool.validate(questions, asked_in=asked_in, replay=replay)

    async def stats(self, account: Account) -> PoolStats:
        """What the pool did so far; see `ValidatorPool.stats`."""
        return (await self._account(account))[2].stats()

    async def close(self, account: Account) -> None:
        """Close the judge's connections and the ledger of an account."""
        if account.key in self._open:
            _, ledger, pool = self._open.pop(account.key)
            await pool.close()
            ledger.close()

    async def _account(self, account: Account) -> _Opened:
        async with self._opening:
            if account.key not in self._open:
                self._open[account.key] = await self._opened(account)
            return self._open[account.key]

    async def _opened(self, account: Account) -> _Opened:
        config = account.config
        self._check_shared(config)
        judge = make_judge(
            config,
            seed=account.seed,
            hidden=self._hidden.of if self._hidden else None,
            votes=self._votes(),
        )
        self._limits = self._limits or Limits(config)
        ledger = await asyncio.to_thread(Ledger, account.ledger)
        try:
            await asyncio.to_thread(ledger.lease, judge.name, wait_s=LEASE_S)
            pool = ValidatorPool(judge, ledger, config, seed=account.seed, limits=self._limits)
        except BaseException:
            ledger.close()
            raise
        return judge, ledger, pool

    def _votes(self) -> Votes | None:
        if not len(self._examples):
            return None
        # Not above: a pool that comes back after a crash need not wait for scikit-learn.
        from red_ray.judges.votes import lexical_votes

        return lexical_votes(self._examples.texts, self._examples.labels)

    def _check_shared(self, config: JudgeConfig) -> None:
        for key in SHARED:
            ours, theirs = getattr(self._limits_of, key), getattr(config, key)
            if ours != theirs:
                raise ConfigError(
                    f"the pool of judge {config.spec!r} runs with judge.{key}={ours!r}, and this "
                    f"asks for {theirs!r}: use the same value, or wait until the other has ended"
                )
