"""`red-ray train --dry-run`: what the judge would be asked, and what that costs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from red_ray.cli.console import Output
from red_ray.cli.running import opened_ledger
from red_ray.config import JudgeConfig, RunConfig
from red_ray.data.inputs import Inputs
from red_ray.errors import ConfigError
from red_ray.judges.spec import WITHOUT_WORDS, is_simulated, price_of
from red_ray.working_copy import Place

if TYPE_CHECKING:
    from red_ray.judges import Judge
    from red_ray.training import TrainingJob
    from red_ray.training.plan import Known, Plan
    from red_ray.types import Question


def show_plan(output: Output, config: RunConfig, inputs: Inputs, out: Place) -> None:
    """Print what a run would ask the judge; nobody is asked and the run's folder stays as it is.

    Raises:
        ConfigError: there is no judge, no pool, or nothing that the loop would ask about; or a
            prompt is longer than `judge.tokens_per_minute`.
    """
    from red_ray.training import TrainingJob
    from red_ray.training.plan import ASSUMED_LATENCY_S, make_plan, open_tokenizer

    if not (config.judge.spec and inputs.pool):
        raise ConfigError(
            "--dry-run says what a judge would be asked and cost; give it --judge and --pool"
        )
    price, judge, count = price_of(config.judge), _judge(config, inputs), open_tokenizer(config)
    job = TrainingJob.of(config, inputs)
    asked = asyncio.run(_first_round(output, job, judge))
    plan = make_plan(
        job,
        asked,
        count=count,
        price=price,
        known=_known(config, out, judge.name, asked),
        latency_s=0.0 if _is_wordless(config.judge) else ASSUMED_LATENCY_S,
    )
    facts = {"judge": config.judge.spec, "simulated": is_simulated(config.judge.spec)}
    output.result(facts | asdict(plan) | {"tokenizer": config.judge.tokenizer})
    output.note("a dry run: nobody was asked, and nothing is written")
    if not output.as_json:
        _print(output.out, plan, job)


def _judge(config: RunConfig, inputs: Inputs) -> Judge:
    """The judge, for its name alone: it needs no key."""
    from red_ray.judges import make_judge

    variable = config.judge.key_variable
    environ = {**os.environ, variable: os.environ.get(variable, "").strip() or "none"}
    hidden = inputs.hidden.of if inputs.hidden else None
    return make_judge(
        config.judge, seed=config.seed, hidden=hidden, votes=lambda _: (), environ=environ
    )


async def _first_round(output: Output, job: TrainingJob, judge: Judge) -> tuple[Question, ...]:
    from red_ray.encoding import open_encoder
    from red_ray.training import LocalFleet
    from red_ray.training.plan import first_round

    fleet = LocalFleet(open_encoder(job.config.encoder))
    try:
        with output.steps() as steps:
            asked = await first_round(job, fleet, judge.name, steps.show)
    finally:
        fleet.close()
        await judge.close()
    if not asked:
        raise ConfigError(
            "the loop would ask nothing: no pool text is unsure enough; lower "
            f"loop.uncertainty_threshold={job.config.loop.uncertainty_threshold!r}"
        )
    return asked


def _known(config: RunConfig, out: Place, judge_name: str, asked: Sequence[Question]) -> Known:
    from red_ray.training.plan import Known, known_of

    with opened_ledger(config, out) as ledger:
        return Known() if ledger is None else known_of(ledger, judge_name, asked)


def _print(console: Console, plan: Plan, job: TrainingJob) -> None:
    judge = job.config.judge
    grid = Table.grid(padding=(0, 3))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, first, *more in (
        ("judge", *_who(plan, judge)),
        ("questions", *_questions(plan, job)),
        ("tokens", *_tokens(plan, job)),
        ("price", *_price(plan, judge)),
        ("time", *_time(plan, judge)),
    ):
        grid.add_row(name, f"[bold]{escape(first)}[/]")
        for line in more:
            grid.add_row("", escape(line))
    console.print(grid, highlight=False)
    _print_prompt(console, plan)


def _who(plan: Plan, judge: JudgeConfig) -> list[str]:
    lines = [judge.spec or ""]
    if is_simulated(judge.spec):
        lines.append("SIMULATED: no language model is asked")
    if plan.known.n_answers:
        n_answers = plan.known.n_answers
        lines.append(f"{n_answers:,} answers of it are in the ledger; what they answer is free")
    return lines


def _questions(plan: Plan, job: TrainingJob) -> list[str]:
    questions, loop = plan.questions, job.config.loop
    rounds = f"at most {min(loop.samples_per_iteration, len(job.pool)):,} in a round"
    if questions.about_pool < len(job.pool):
        rounds = f"in {loop.max_iterations:,} rounds of {loop.samples_per_iteration:,} at most"
    lines = [
        f"at most {questions.total:,}" + (" new ones" if questions.free else ""),
        f"{questions.about_pool:,} about the pool of {len(job.pool):,} texts, {rounds}",
    ]
    if questions.free:
        lines.append(
            f"{questions.free:,} of the first round's are answered in the ledger, and not counted; "
            "more may be"
        )
    if questions.planted:
        lines.append(f"{questions.planted:,} about rows whose label is known (judge.gold_share)")
    if questions.descriptions:
        lines.append(f"{questions.descriptions:,} for descriptions, which lengthen every prompt")
    if questions.paraphrases:
        n = questions.paraphrases
        lines.append(f"{n:,} for paraphrases (judge.paraphrases), whose answers are longer")
    if questions.cut_by:
        lines.append(f"{questions.cut_by} ends it there")
    return [*lines, "the loop may stop before; what has to be asked again comes on top"]


def _tokens(plan: Plan, job: TrainingJob) -> list[str]:
    from red_ray.training.plan import MAX_POOL

    tokens, known, tokenizer = plan.tokens, plan.known, job.config.judge.tokenizer
    whose = f"the tokenizer {tokenizer!r}"
    if tokenizer is None:
        whose = "the encoder's tokenizer; judge.tokenizer names the model's own"
    lines = [
        f"about {tokens.total:,}",
        f"{tokens.prompt:,.0f} a prompt, the longest {tokens.longest_prompt:,}",
        f"{tokens.answer:,.0f} an answer, the longest {tokens.longest_answer:,}; "
        "a model that reasons writes more",
        f"counted on {plan.questions.first_round:,} prompts, from the training rows and "
        f"{min(MAX_POOL, len(job.pool)):,} texts of the pool, with {whose}",
    ]
    if known.prompt_tokens is not None:
        measured = f"{known.prompt_tokens:,.0f} a prompt, {known.answer_tokens or 0:,.0f} an answer"
        lines.insert(1, f"measured, and used here: {measured}")
    if plan.ceiling is not None:
        longest = f"judge.max_answer_tokens={job.config.judge.max_answer_tokens}"
        told = f"at most {plan.ceiling.tokens:,}, were every prompt the longest one and every "
        lines.insert(1, f"{told}answer of {longest}")
    return lines


def _price(plan: Plan, judge: JudgeConfig) -> list[str]:
    if plan.cost_usd is None:
        return ["unknown: set input_usd and output_usd of the model in judge.prices"]
    if not plan.cost_usd:
        free = _is_wordless(judge) or not plan.questions.total
        return ["0 USD" if free else "0 USD, unless judge.prices names the model"]
    each = plan.cost_usd / plan.questions.total
    told = f"about {plan.cost_usd:,.2f} USD, {1000 * each:,.3f} USD for 1,000 questions"
    if plan.ceiling is None or plan.ceiling.cost_usd is None:
        return [told]
    return [told, f"at most {plan.ceiling.cost_usd:,.2f} USD, for as many tokens"]


def _time(plan: Plan, judge: JudgeConfig) -> list[str]:
    if not plan.time_s:
        return ["none worth telling"]
    told = f"about {_duration(plan.time_s)}"
    if plan.bound_by != "latency":
        limit = getattr(judge, plan.bound_by.removeprefix("judge."))
        return [told, f"at {plan.bound_by}={limit!r}"]
    how = "assumed" if plan.known.latency_s is None else "measured"
    return [
        told,
        f"at {plan.latency_s:.2g} s an answer ({how}), judge.concurrency={judge.concurrency}",
    ]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _print_prompt(console: Console, plan: Plan) -> None:
    console.print("\nThe first prompt, as sent", style="dim")
    for message in plan.messages:
        console.print(f"\n[bold]{message['role']}[/]")
        console.print(message["content"], markup=False, highlight=False, soft_wrap=True)
    console.print("\n[bold]schema of the answer[/]")
    schema = json.dumps(plan.schema, ensure_ascii=False)
    console.print(schema, markup=False, highlight=False, soft_wrap=True)


def _is_wordless(judge: JudgeConfig) -> bool:
    return (judge.spec or "").startswith(WITHOUT_WORDS)
