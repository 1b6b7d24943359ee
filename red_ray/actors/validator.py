"""The validator pool actor, as loop and driver ask it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError

from red_ray.actors.cluster import fetch, on_this_node, start_actor
from red_ray.actors.remote import Remote, waits_s
from red_ray.actors.validator_pool import Account, ValidatorPoolActor
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.judges import PoolStats
from red_ray.judges.ledger import is_url
from red_ray.judges.spec import WITHOUT_WORDS
from red_ray.types import Question, Verdict

CLOSE_S = 5.0
"""How long a failed run waits for its open requests to be cancelled and counted."""

PER_CALL, CALLS = 512, 4
"""Questions that one call carries, and calls under way: so many the pool holds of one caller."""

NAMESPACE = "red_ray"


class RayValidator:
    """One account of a judge's validator pool, as the loop asks it.

    There is one named pool for a judge in a cluster: whoever comes first starts it, and where its
    starter ends the next caller starts it again. A call that a dead pool took along is repeated:
    the ledger knows what was answered.

    Args:
        account: configuration, ledger and seed.
        run: names the run in the ledger; empty where none is resumed.
        n_done: rounds that it finished before it was cut short; what failed in them has failed.
        examples: labelled rows, for the judges that look at them.
        hidden: labels of the pool that only a simulated judge sees.
    """

    def __init__(
        self,
        account: Account,
        run: str,
        n_done: int,
        *,
        examples: LabelledRows,
        hidden: HiddenLabels | None,
    ) -> None:
        self._run = run
        self._n_done = n_done
        spec = str(account.config.spec)
        # Who answers from a run's own rows may be asked by no other run.
        self._own = own = spec.partition(":")[0] in WITHOUT_WORDS
        self._options: dict[str, Any] = {"name": f"validator-pool: {spec}", "num_cpus": 0}
        self._options |= {"max_restarts": -1, "max_task_retries": 0}
        if not own:
            self._options |= {"namespace": NAMESPACE, "get_if_exists": True}
        # A file is on this machine, and so must be who writes it; over a database it comes back
        # elsewhere.
        is_file = not is_url(account.ledger)
        here = str(ray.get_runtime_context().get_node_id()) if is_file else ""
        self._options["scheduling_strategy"] = on_this_node(must=is_file)
        self._account = replace(account, user=uuid.uuid4().hex, node=here)
        # Not kept: a copy of this goes to the coordinator, which must not see hidden labels.
        self._actor = self._started(examples, hidden) if own else self._started()
        self.judge_name = ""

    def replay(self, n_done: int) -> None:
        """Another loop runs the first `n_done` rounds again, or more that it replayed before."""
        self._n_done = max(self._n_done, n_done)

    def open(self) -> None:
        """Open the judge and the ledger, for code that is not asynchronous."""
        self.judge_name = self._fetch("open")

    async def validate(self, questions: Sequence[Question], round_number: int) -> Sequence[Verdict]:
        """See `ValidatorPool.validate`."""
        asked_in = f"{self._run}/{round_number}" if self._run else ""
        replay = round_number <= self._n_done
        places = asyncio.Semaphore(CALLS)
        shares = [questions[at : at + PER_CALL] for at in range(0, len(questions), PER_CALL)]
        try:
            async with asyncio.TaskGroup() as group:
                calls = [
                    group.create_task(self._call(places, list(share), asked_in, replay))
                    for share in shares
                ]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the one that stopped the others
        return [verdict for call in calls for verdict in call.result()]

    async def stats(self) -> PoolStats | None:
        """See `ValidatorPool.stats`; None while the pool is started again."""
        try:
            stats: PoolStats = await Remote(self._actor, self._account).stats()
        except RayActorError:
            return None
        return stats

    def close(self) -> PoolStats:
        """Close the account, for code that is not asynchronous; what the pool did."""
        stats: PoolStats = self._fetch("stats")
        self._fetch("close")
        return stats

    def end(self) -> None:
        """Close the account of a run that failed; what its open requests cost is kept."""
        ray.wait([self._actor.close.remote(self._account)], timeout=CLOSE_S)
        if self._own:
            ray.kill(self._actor)
        del self._actor  # the error's traceback holds us, and would keep the pool alive

    def _fetch(self, name: str) -> Any:
        """Have the pool do `name`, once more where it died meanwhile."""
        for wait_s in waits_s():
            try:
                return fetch(getattr(self._actor, name).remote(self._account))
            except ActorDiedError as error:
                self._start_again(error)
            except RayActorError:
                time.sleep(wait_s)
        return fetch(getattr(self._actor, name).remote(self._account))

    async def _call(self, places: asyncio.Semaphore, *call: Any) -> list[Verdict]:
        """Have the pool validate a share, once more where it died meanwhile."""
        async with places:
            for wait_s in waits_s():
                try:
                    return await self._validate(*call)
                except ActorDiedError as error:
                    self._start_again(error)
                except RayActorError:
                    await asyncio.sleep(wait_s)
            return await self._validate(*call)

    async def _validate(self, *call: Any) -> list[Verdict]:
        verdicts: list[Verdict] = await Remote(self._actor, self._account).validate(*call)
        return verdicts

    def _start_again(self, error: ActorDiedError) -> None:
        """In place of a pool that died for good; nobody has the rows of one of our own."""
        if self._own:
            raise error
        self._actor = self._started()

    def _started(self, *rows: object) -> Any:
        rows = rows or (LabelledRows((), ()), None)
        return start_actor(ValidatorPoolActor, self._account.config, *rows, **self._options)
