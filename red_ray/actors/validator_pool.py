"""The validator pool actor: asks the judge, keeps the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from red_ray.config import RunConfig
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.judges import Ledger, PoolStats, ValidatorPool, make_judge
from red_ray.judges.votes import lexical_votes
from red_ray.types import Question, Verdict


class ValidatorPoolActor:
    """The async validator pool of one judge."""

    def __init__(
        self,
        config: RunConfig,
        ledger: str,
        examples: LabelledRows,
        hidden: HiddenLabels | None,
    ) -> None:
        self._config = config
        self._place = ledger
        self._examples = examples
        self._hidden = hidden

    async def open(self) -> str:
        """Open the judge and the ledger; the judge's name, part of every question's key."""
        # Not in the constructor: what it raises there, Ray keeps as text alone.
        judge = make_judge(
            self._config.judge,
            seed=self._config.seed,
            hidden=self._hidden.of if self._hidden else None,
            votes=lexical_votes(self._examples.texts, self._examples.labels),
        )
        self._ledger = Ledger(self._place)
        self._pool = ValidatorPool(judge, self._ledger, self._config.judge)
        return judge.name

    async def validate(self, questions: Sequence[Question]) -> list[Verdict]:
        """See `ValidatorPool.validate`."""
        return await self._pool.validate(questions)

    async def exhausted(self) -> bool:
        """Whether the budget is used up."""
        return self._pool.exhausted

    async def stats(self) -> PoolStats:
        """What the pool did so far."""
        return self._pool.stats()

    async def close(self) -> None:
        """Close the judge's connections and the ledger."""
        await self._pool.close()
        self._ledger.close()
