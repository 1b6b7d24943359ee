"""Asking the judge of a trained run, as `classify` and `evaluate` do it, and telling of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from red_ray.cli.console import Output
from red_ray.cli.loop_thread import LoopThread
from red_ray.cli.options import resolve
from red_ray.cli.running import ledger_of
from red_ray.config import RunConfig
from red_ray.errors import ConfigError, JudgeUnavailable
from red_ray.judges.spec import is_simulated
from red_ray.run_folder import RunFolder
from red_ray.types import Outcome

if TYPE_CHECKING:
    from red_ray.escalation import Escalator
    from red_ray.judges import Judge, PoolStats, ValidatorPool
    from red_ray.model import Assessment, RedModel
    from red_ray.types import Decision

Floats = NDArray[np.float32]

SETTABLE = ("judge.", "router.on_failure")
"""What `--set` may say of a model that is trained."""

MANY = 100
"""So many answers of which not one could be read: the next will be no better."""

TELL_EVERY_S = 0.5

AGAIN = "run the same command again: what was answered is not asked again"
"""What to do when a judge that was away is back."""

_TOLD = logging.NullHandler()
"""Takes the log of a judge that is away: here a line says it, see `telling`."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A judge that can be asked."""

    config: RunConfig
    escalator: Escalator
    pool: ValidatorPool
    loop: LoopThread

    def begin(
        self,
        texts: Sequence[str],
        vectors: Floats,
        assessment: Assessment,
        decisions: Sequence[Decision],
    ) -> Future[list[Decision]]:
        """Put the escalated texts; see `Escalator.decide`."""
        return self.loop.submit(self.escalator.decide(texts, vectors, assessment, decisions))

    def facts(self) -> dict[str, Any]:
        """Who was asked by this command, and what it took."""
        stats, spec = self.pool.stats(), self.config.judge.spec
        return {
            "judge": spec,
            "simulated": is_simulated(spec),
            "on_failure": self.config.router.on_failure,
            "requests": stats.requests,
            "from_ledger": stats.cached,
            "cost_usd": stats.cost_usd,
        }

    def unasked(self, n: int) -> str:
        """Which budget is used up, what that left unasked, and how to go on.

        Args:
            n: questions that it did not reach.
        """
        spent, judge = self.pool.budget_spent, self.config.judge.model_dump()
        key = f"budget_{max(spent, key=lambda name: spent[name], default='calls')}"
        questions = "1 question was" if n == 1 else f"{n:,} questions were"
        return (
            f"judge.{key}={judge[key]} is used up (all that the run asked counts), and {questions} "
            f"not asked: --set judge.{key}=… for more"
        )

    def check_is_of_use(self) -> None:
        """Stop where the judge answers and cannot be understood.

        Raises:
            JudgeUnavailable: not one of many answers could be read.
        """
        # Not the pool's counters: what the ledger knows must stop it again.
        found = self.escalator.outcomes
        n_unread = found[Outcome.UNREADABLE]
        if n_unread >= MANY and not found[Outcome.LABEL] + found[Outcome.NONE]:
            raise JudgeUnavailable(
                f"none of the judge's {n_unread} answers could be read; ask another model, "
                "or raise judge.max_answer_tokens"
            )


def settings_of(
    run: RunFolder,
    judge: str | None,
    assignments: list[str] | None,
    command: str,
    otherwise: str = "",
) -> RunConfig:
    """The run's configuration, perhaps with another judge or another limit of it.

    Args:
        run: whose it is.
        judge: whom to ask in place of the run's.
        assignments: of `--set`.
        command: that is run, for a message.
        otherwise: what else can be done where nobody is named to be asked.

    Raises:
        ConfigError: nobody is named to be asked, or something else than the judge is to change.
    """
    for assignment in assignments or []:
        if not assignment.strip().startswith(SETTABLE):
            raise ConfigError(
                f"--set {assignment!r}: the model is trained, only the judge can change: set a key "
                "of judge, or router.on_failure"
            )
    config = resolve(run.path / "config.yaml", assignments, {"judge.spec": judge})
    if config.judge.spec is None:
        raise ConfigError(
            f"the run was trained without a judge: say whom to ask, as `{command} --judge "
            f"ollama:MODEL`{otherwise}"
        )
    return config


@contextmanager
def asking(
    config: RunConfig,
    run: RunFolder,
    model: RedModel,
    judge: Judge,
    on_progress: Callable[[PoolStats], None],
) -> Iterator[Asking]:
    """Open the judge over the run's ledger.

    Raises:
        ConfigError: there is a budget in money, and no price.
        OutputError: the ledger cannot be opened, or another process asks this judge.
    """
    from red_ray.escalation import Escalator, asked_in
    from red_ray.judges import Ledger, Limits, ValidatorPool
    from red_ray.training import PoolValidator

    logging.getLogger("red_ray.judges.breaker").addHandler(_TOLD)
    with (
        closing(Ledger(ledger_of(config, run))) as ledger,
        ledger.lease(judge.name),
        LoopThread() as loop,
    ):
        limits = Limits(config.judge, again=AGAIN)
        pool = ValidatorPool(judge, ledger, config.judge, seed=config.seed, limits=limits)
        validator = PoolValidator(pool, judge.name, asked_in(config.judge))
        escalator = Escalator(model, validator, config.judge, config.router.on_failure)
        loop.submit(_tell(pool, on_progress))
        try:
            yield Asking(config, escalator, pool, loop)
        finally:
            loop.submit(pool.close()).result()


async def _tell(pool: ValidatorPool, on_progress: Callable[[PoolStats], None]) -> None:
    while True:
        await asyncio.sleep(TELL_EVERY_S)
        on_progress(pool.stats())


@contextmanager
def telling(
    output: Output, doing: str
) -> Iterator[tuple[Callable[[str], None], Callable[[PoolStats], None]]]:
    """Shows how far the judge is, and on a line of its own what holds it up."""
    told: set[str] = set()

    def show(stats: PoolStats) -> None:
        n_open = stats.waiting + stats.in_flight
        if n_open:
            tell(f"{doing}: {stats.requests:,} requests, {n_open:,} questions open")
        if stats.notice and stats.notice not in told:
            told.add(stats.notice)
            output.note(stats.notice)

    with output.doing(doing) as tell:
        yield tell, show


def told_of(facts: Mapping[str, Any]) -> str:
    """Who was asked, and what it took, in one line."""
    spec = str(facts["judge"])
    who = f"{spec} (SIMULATED: no language model was asked)" if facts["simulated"] else spec
    known = f", {facts['from_ledger']:,} answers from the ledger" if facts["from_ledger"] else ""
    return f"{who}: {facts['requests']:,} requests{known}, {price(facts['cost_usd'])}"


def price(cost_usd: float | None) -> str:
    """What something cost, as a reader meets it."""
    if cost_usd is None:
        return "price unknown (set judge.prices)"
    return f"{cost_usd:,.4f} USD" if cost_usd else "0 USD"


def show_curve(output: Output, found: Mapping[str, Any]) -> None:
    """Print what escalating brings."""
    if output.as_json:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3), header_style="dim")
    for name in ("escalated", "accuracy", "95 % interval", "calls", "price"):
        table.add_column(name, justify="right")
    for point in found["curve"]:
        low, high = point["accuracy_ci"]
        table.add_row(
            f"{point['escalated']:.0%}",
            f"{point['accuracy']:.1%}",
            f"[dim]{low:.1%} – {high:.1%}[/]",
            f"{point['calls']:,}",
            price(point["cost_usd"]),
        )
    output.out.print(f"\nasked {told_of(found)}", soft_wrap=True, markup=False, highlight=False)
    output.out.print(table)
