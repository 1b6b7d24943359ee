"""Puts a suite to each judge, through the ledger, one judge after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from red_ray.config import RunConfig
from red_ray.data.prepare import HiddenLabels
from red_ray.errors import ConfigError
from red_ray.evaluation.audit.figures import Answer
from red_ray.evaluation.audit.suite import AuditRows, Item
from red_ray.judges import Judge, Ledger, PoolStats, ValidatorPool, make_judge
from red_ray.judges.neighbours import Votes
from red_ray.judges.prompts import presented
from red_ray.judges.votes import lexical_votes
from red_ray.types import HUMAN, Verdict

OnProgress = Callable[[str, PoolStats], None]
"""Called with a judge's spec and what was done so far, now and then."""

TELL_EVERY_S = 0.25

ROUND = "audit"
"""All of an audit is one round: run again, a failed answer stays what it was and costs the same."""


@dataclass(frozen=True, slots=True)
class AuditJob:
    """Who is asked about which rows.

    Attributes:
        source: the labelled rows.
        descriptions: of labels, by name.
        specs: the judges.
        config: `audit` and `judge` sections, seed; limits and budgets hold for each judge.
    """

    source: AuditRows
    descriptions: Mapping[str, str]
    specs: tuple[str, ...]
    config: RunConfig

    def check(self) -> None:
        """Find what cannot work before anything is computed, written or asked.

        Raises:
            ConfigError: no judge, one that is named twice, is unknown or lacks what it needs.
        """
        if not self.specs:
            raise ConfigError("an audit needs a judge: give --judge, once for each")
        twice = sorted({spec for spec in self.specs if self.specs.count(spec) > 1})
        if twice:
            raise ConfigError(f"--judge {twice[0]!r} is given twice; name each judge once")
        for spec in self.specs:
            self.make_judge(spec, votes=lambda _: ())

    def make_judge(self, spec: str, votes: Votes) -> Judge:
        """The judge; a simulated one is told the rows' labels."""
        rows = self.source.rows
        return make_judge(
            self.config.judge.model_copy(update={"spec": spec}),
            seed=self.config.seed,
            hidden=HiddenLabels.of_texts(zip(rows.texts, rows.labels, strict=True)).of,
            votes=votes,
        )


async def ask_judges(
    job: AuditJob, suite: Sequence[Item], ledger_file: Path, on_progress: OnProgress
) -> dict[str, list[Answer]]:
    """Ask every judge every question that the ledger does not answer.

    Args:
        job: the judges, and the rows for those that need them.
        suite: the questions.
        ledger_file: the verdicts of this audit, so that one cut short goes on. No shared ledger:
            what a judge was paid elsewhere would be missing from its price.
        on_progress: called while a judge is asked.

    Returns:
        The answers of each judge in the order of the suite; a question that a budget did not
        reach has none, nor has one that a person decided.

    Raises:
        JudgeError: a judge refuses or cannot be reached; what was answered is kept.
        OutputError: another process asks the judge for the same audit.
        StorageError: a verdict could not be stored.
    """
    ledger = Ledger(ledger_file)
    try:
        return {spec: await _ask(spec, job, suite, ledger, on_progress) for spec in job.specs}
    finally:
        ledger.close()


async def _ask(
    spec: str, job: AuditJob, suite: Sequence[Item], ledger: Ledger, on_progress: OnProgress
) -> list[Answer]:
    judge = job.make_judge(spec, crossfitted_votes(job.source))
    settings = job.config.judge.model_copy(update={"spec": spec})
    with ledger.lease(judge.name):
        pool = ValidatorPool(judge, ledger, settings, seed=job.config.seed)
        try:
            verdicts = await _collect(pool, suite, lambda stats: on_progress(spec, stats))
        finally:
            await pool.close()
    given = [(item, verdicts.get(pool.key(item.question))) for item in suite]
    return [
        Answer(item, verdict, _order(item, verdict.key, job.config.seed))
        for item, verdict in given
        if verdict is not None and verdict.judge != HUMAN
    ]


async def _collect(
    pool: ValidatorPool, suite: Sequence[Item], on_progress: Callable[[PoolStats], None]
) -> dict[str, Verdict]:
    """The verdicts by their key; the progress is told all the while."""
    telling = asyncio.create_task(_tell(pool, on_progress))
    questions = [item.question for item in suite]
    try:
        verdicts = await pool.validate(questions, asked_in=ROUND, replay=True)
    finally:
        telling.cancel()
        await asyncio.wait([telling])
    return {verdict.key: verdict for verdict in verdicts}


async def _tell(pool: ValidatorPool, on_progress: Callable[[PoolStats], None]) -> None:
    while True:
        on_progress(pool.stats())
        await asyncio.sleep(TELL_EVERY_S)


def _order(item: Item, key: str, seed: int) -> tuple[str, ...]:
    """The candidates' labels as the pool presented them."""
    return tuple(candidate.label for candidate in presented(item.question, key, seed).candidates)


def crossfitted_votes(source: AuditRows) -> Votes:
    """Votes of the examples outside a text's own fold, among which it would find itself."""
    fold_of = dict(zip(source.rows.texts, source.folds.tolist(), strict=True))
    by_fold: dict[int, Votes] = {}

    def votes(text: str) -> Sequence[tuple[str, float]]:
        fold = fold_of[text]
        if fold not in by_fold:
            known = source.rows.take((source.folds != fold).nonzero()[0])
            by_fold[fold] = lexical_votes(known.texts, known.labels)
        return by_fold[fold](text)

    return votes
