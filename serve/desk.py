"""The one place of an endpoint that holds ledger, judge, review queue and rates.

All replicas ask it, so that a ledger in a file has one writer, and what they did adds up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from red_ray.address import is_address
from red_ray.bundle import load_bundle
from red_ray.config import JudgeConfig, RunConfig
from red_ray.data.prepare import HiddenLabels
from red_ray.errors import ConfigError, RedRayError
from red_ray.escalation import asked_in, judge_of, truth_of
from red_ray.judges import Ledger, PoolStats, ValidatorPool, question_key
from red_ray.judges.ledger import Review
from red_ray.judges.spec import is_simulated
from red_ray.model import RedModel
from red_ray.run_folder import RunFolder
from red_ray.training import PoolValidator
from red_ray.types import Question, Verdict
from serve import rates, review
from serve.loaded import check_can_keep, judged, run_at
from serve.schemas import Feedback, Queue, Stats
from serve.settings import ServeSettings

IDLE_S = 900.0
"""After which a run that no replica answers from is let go: longer than a question may take."""

ROUND = 1
"""All questions of an endpoint are of one round; see `red_ray.escalation.ROUND`."""


class Validator(Protocol):
    """A judge's pool that was opened."""

    judge_name: str

    async def validate(self, questions: Sequence[Question], round_number: int) -> Sequence[Verdict]:
        """Verdicts; a question that the budget left unasked has none."""

    async def stats(self) -> PoolStats | None:
        """What the pool did; None while it is started again."""

    async def close(self) -> None:
        """End what is under way."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What it takes to open a run's judge; `place` is the run's folder or address."""

    place: str
    config: RunConfig
    run: RunFolder
    model: RedModel
    truth: HiddenLabels | None

    @property
    def ledger(self) -> str:
        """Where its verdicts are."""
        return self.config.judge.ledger or str(self.run.ledger)


OpenJudge = Callable[[Opening], Awaitable[Validator]]


@dataclass(frozen=True, slots=True)
class News:
    """What a replica is told when it reports: why the judge is paused, else empty."""

    notice: str = ""


class Desk:
    """Asks judges, keeps what people say, and adds up what the replicas did.

    Args:
        settings: of the endpoint.
        open_judge: opens a run's judge.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: ServeSettings,
        open_judge: OpenJudge,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._open_judge = open_judge
        self._clock = clock
        self._validators: dict[str, Validator] = {}
        self._judges: dict[str, JudgeConfig] = {}
        self._ledgers: dict[str, tuple[str, Ledger]] = {}  # beside each its place
        self._heard_of: dict[str, float] = {}
        # Two: a judge that takes long to open must not keep what people say waiting.
        self._opening_judge, self._opening_ledger = asyncio.Lock(), asyncio.Lock()
        self._rates = rates.Board()

    async def open(self, run: str) -> str:
        """Open the judge of a run, where that was not done; its name, part of each question's key.

        Where the run's configuration has another judge by now, that one takes the place of the old.

        Raises:
            RedRayError: it cannot be asked.
        """
        self._heard_of[run] = self._clock()
        folder = await asyncio.to_thread(_folder_of, run)
        config = await asyncio.to_thread(judged, folder, self._settings)
        async with self._opening_judge:
            if run in self._judges and self._judges[run] != config.judge:
                await self._close_judge(run)
        return (await self._validator(run)).judge_name

    async def validate(self, run: str, questions: Sequence[Question]) -> list[Verdict]:
        """The verdicts on some questions; what the budget left unasked has none.

        One that the ledger held before costs nothing, though it was an endpoint that bought it; so
        does one that could not be read, as that is not asked for again.
        """
        validator, ledger = await self._validator(run), await self._ledger(run)
        keys = [question_key(question, validator.judge_name) for question in questions]
        turn = f"{asked_in(self._judges[run])}/{ROUND}"
        known = await asyncio.to_thread(ledger.get_many, keys, asked_in=turn, replay=False)
        given = await validator.validate(questions, ROUND)
        return [
            replace(one, requests=0, cost_usd=0.0) if one.key in known else one for one in given
        ]

    async def feedback(self, run: str, answers: Sequence[Feedback], labels: Sequence[str]) -> int:
        """Keep what people said; how many said something new.

        Raises:
            DataError: a label is unknown.
            StorageError: the disk is full.
        """
        ledger = await self._ledger(run)
        return await asyncio.to_thread(review.keep, ledger, answers, labels)

    async def queue(self, run: str, limit: int) -> Queue:
        """The texts that wait for a person."""
        ledger = await self._ledger(run)
        folder = await asyncio.to_thread(_folder_of, run)
        return await asyncio.to_thread(review.queue, ledger, folder, limit=limit)

    async def report(self, run: str, snapshot: rates.Snapshot, reviews: Sequence[Review]) -> News:
        """Take what a replica did since it was started, and texts that a person should look at."""
        self._rates.put(snapshot)
        self._heard_of[run] = self._clock()
        await self._close_idle()
        if reviews:
            ledger = await self._ledger(run)
            await asyncio.to_thread(ledger.add_reviews, reviews)
        validator = self._validators.get(run)
        stats = None if validator is None else await validator.stats()
        return News("" if stats is None else stats.notice)

    async def stats(self, run: str, promised: rates.Promised | None) -> Stats:
        """What all replicas did."""
        validator = self._validators.get(run)
        judge = None if validator is None else await validator.stats()
        return self._rates.stats(promised, judge)

    async def close(self) -> None:
        """Close judges and ledgers."""
        for run in [*self._validators]:
            await self._close_judge(run)
        for run in [*self._ledgers]:
            self._close_ledger(run)

    async def _close_idle(self) -> None:
        """Close what no replica has asked for since long: the link points elsewhere by now."""
        now = self._clock()
        for run in [run for run, at in self._heard_of.items() if now - at > IDLE_S]:
            self._heard_of.pop(run, None)  # another report may close it too
            await self._close_judge(run)
            self._close_ledger(run)

    def _close_ledger(self, run: str) -> None:
        if run in self._ledgers:
            self._ledgers.pop(run)[1].close()

    async def _close_judge(self, run: str) -> None:
        self._judges.pop(run, None)
        validator = self._validators.pop(run, None)
        if validator is not None:
            await validator.close()

    async def _validator(self, run: str) -> Validator:
        if run in self._validators:  # not behind the lock: another run's judge may take long
            return self._validators[run]
        async with self._opening_judge:
            if run not in self._validators:
                opening = await asyncio.to_thread(self._opening, run)
                self._validators[run] = await self._open_judge(opening)
                self._judges[run] = opening.config.judge
            return self._validators[run]

    def _opening(self, run: str) -> Opening:
        folder = RunFolder.open(_folder_of(run).path)
        config = judged(folder, self._settings)
        check_can_keep(run, config)
        if config.judge.spec is None:
            raise ConfigError("the endpoint has no judge")
        model = load_bundle(folder.bundle)
        return Opening(run, config, folder, model, truth_for(config, model, self._settings))

    async def _ledger(self, run: str) -> Ledger:
        """The ledger of a run, which may have another by now than it had."""
        async with self._opening_ledger:
            held = self._ledgers.get(run)
            try:
                folder = await asyncio.to_thread(_folder_of, run)
                config = await asyncio.to_thread(judged, folder, self._settings)
                check_can_keep(run, config)  # else the file would be in a copy that goes
            except RedRayError:
                if held is None:
                    raise
                return held[1]  # between two bundles there may be none
            place = config.judge.ledger or str(folder.ledger)
            if held is None or held[0] != place:
                opened = await asyncio.to_thread(Ledger, place)
                self._close_ledger(run)
                self._ledgers[run] = place, opened
            return self._ledgers[run][1]


def _folder_of(run: str) -> RunFolder:
    return run_at(run) if is_address(run) else RunFolder(Path(run))


def truth_for(config: RunConfig, model: RedModel, settings: ServeSettings) -> HiddenLabels | None:
    """The labels that a simulated judge plays with; None for any other.

    Raises:
        ConfigError: they are not named.
        DataError: they cannot be read.
    """
    path = settings.judge.truth
    if path is not None:
        return truth_of(Path(path), config, model)
    if is_simulated(config.judge.spec):
        raise ConfigError(
            f"judge {config.judge.spec!r} only plays one and needs the truth: name a table with "
            "labels as judge.truth, or serve with another judge"
        )
    return None


class LocalValidator(PoolValidator):
    """A pool of this process; see `Validator`."""

    def __init__(self, pool: ValidatorPool, name: str, run: str, ends: Callable[[], None]) -> None:
        super().__init__(pool, name, run)
        self._ends = ends

    async def close(self) -> None:
        """See `Validator.close`."""
        await self._pool.close()
        self._ends()


async def open_here(opening: Opening) -> Validator:
    """Open a judge in this process: for an endpoint without Ray.

    Raises:
        RedRayError: it is unknown, another process asks it, or its ledger cannot be opened.
    """
    config = opening.config
    judge = judge_of(config, opening.model, opening.truth)
    with ExitStack() as held:
        ledger = await asyncio.to_thread(Ledger, opening.ledger)
        held.callback(ledger.close)
        held.enter_context(await asyncio.to_thread(ledger.lease, judge.name))
        pool = ValidatorPool(judge, ledger, config.judge, seed=config.seed)
        end = held.pop_all().close
    return LocalValidator(pool, judge.name, asked_in(config.judge), end)
