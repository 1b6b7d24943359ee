"""What a run would ask the judge, and what that costs: said before anybody is asked."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from red_ray.config import Price, RunConfig
from red_ray.encoding.files import find_model
from red_ray.encoding.quiet import quiet_libraries
from red_ray.errors import ConfigError
from red_ray.judges import Ledger, question_key
from red_ray.judges.prompts import answer_schema, none_option, options, presented, render
from red_ray.training.bootstrap import TRIES
from red_ray.training.fleet import Fleet
from red_ray.training.gold import GoldRows
from red_ray.training.job import TrainingJob
from red_ray.training.paraphrases import most_questions
from red_ray.training.trainer import Trainer
from red_ray.types import WRITING, Outcome, Progress, Question, Verdict

MAX_POOL = 2_000
"""Pool texts that a dry run looks at: enough for prompts like those of the run."""

ASSUMED_LATENCY_S = 1.0

_ROUNDING = 1e-6  # 0.3 USD are three questions of 0.1, whatever binary makes of them

Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Known:
    """What a ledger tells of a judge; the means are per request, None before the first.

    Attributes:
        n_answers: questions that are answered already.
        n_of_first: of the first round's, as far as it is known.
        requests: made so far, which count towards the budget, as tokens and USD do.
        latency_s: the median of all requests.
    """

    n_answers: int = 0
    n_of_first: int = 0
    requests: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    prompt_tokens: float | None = None
    answer_tokens: float | None = None
    latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class Questions:
    """How many questions there are at most; the loop may stop before.

    Attributes:
        total: of all that are new, as far as the budget reaches.
        about_pool: before the budget and the ledger are looked at, as the next two.
        planted: about rows whose label is known.
        descriptions: of labels that nobody described.
        first_round: of the real rounds, on the texts that the dry run looked at.
        free: of the first round, answered by the ledger; of later rounds nobody knows.
        cut_by: the key of the budget that ends them, empty where none does.
        paraphrases: of examples of labels that have few.
    """

    total: int
    about_pool: int
    planted: int
    descriptions: int
    first_round: int
    free: int = 0
    cut_by: str = ""
    paraphrases: int = 0


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of a question: counted on the first round's prompts and on the answers that fit.

    Attributes:
        prompt, longest_prompt: mean and longest, the answer's schema included.
        answer, longest_answer: of the JSON object alone.
        total: of all questions; by the means of the ledger where it has them.
    """

    prompt: float
    longest_prompt: int
    answer: float
    longest_answer: int
    total: int


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the questions take where every prompt is as long as the longest that was counted, and
    every answer as long as `judge.max_answer_tokens` lets it be; the budgets hold all the same.
    """

    tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would ask, and what that takes.

    Attributes:
        cost_usd: of all questions; None where the price is not known.
        ceiling: of tokens and price, where the configuration says how long an answer may be.
        time_s: at the limits set.
        bound_by: what decides the time: a key of the configuration, or `latency`.
        messages: one prompt, as sent.
        schema: of its answer.
    """

    questions: Questions
    tokens: Tokens
    known: Known
    cost_usd: float | None
    ceiling: Ceiling | None
    time_s: float
    bound_by: str
    latency_s: float
    messages: list[dict[str, str]]
    schema: dict[str, Any]


@dataclass(slots=True)
class _Recorder:
    """Stands in for the judge's pool: keeps the questions and gives no verdict."""

    judge_name: str
    asked: list[Question] = field(default_factory=list)

    async def validate(self, questions: Sequence[Question], round_number: int) -> Sequence[Verdict]:
        if round_number:
            self.asked.extend(one for one in questions if one.mode not in WRITING)
        return ()

    async def stats(self) -> None:
        return None


async def first_round(
    job: TrainingJob, fleet: Fleet, judge_name: str, on_progress: Callable[[Progress], None]
) -> tuple[Question, ...]:
    """Fit on the training rows and draw the first round's questions, as the judge is shown them.

    Of a larger pool `MAX_POOL` texts are looked at, drawn by the seed. Empty where the loop
    would stop before it asks.
    """
    recorder = _Recorder(judge_name)
    trainer = Trainer(replace(job, pool=_sampled(job)), fleet, recorder)
    async with aclosing(cast("AsyncGenerator[Progress, None]", trainer.run())) as steps:
        async for step in steps:
            if step.stage == "loop":  # it stopped, having no verdict
                break
            if step.stage != "judge":
                on_progress(step)
    seed = job.config.seed
    asked = recorder.asked
    return tuple(presented(one, question_key(one, judge_name), seed) for one in asked)


def known_of(ledger: Ledger, judge_name: str, asked: Sequence[Question] = ()) -> Known:
    """What a ledger tells of a judge.

    Args:
        ledger: of the run.
        judge_name: of the judge.
        asked: the first round's questions.

    Raises:
        StorageError: the ledger cannot be read.
    """
    spent = ledger.spent(judge_name)
    latencies = ledger.latencies_ms(judge_name)
    answers = (Outcome.LABEL, Outcome.NONE)
    told = [one for one in ledger.verdicts() if one.judge == judge_name and one.outcome in answers]
    counted = [one for one in told if one.prompt_tokens]
    n_requests = sum(one.requests for one in counted)
    return Known(
        n_answers=len(told),
        n_of_first=len({question_key(one, judge_name) for one in asked} & {v.key for v in told}),
        requests=spent.requests,
        tokens=spent.tokens,
        cost_usd=spent.cost_usd,
        prompt_tokens=_mean(sum(one.prompt_tokens for one in counted), n_requests),
        answer_tokens=_mean(sum(one.completion_tokens for one in counted), n_requests),
        latency_s=float(np.median(latencies)) / 1000 if latencies else None,
    )


def make_plan(
    job: TrainingJob,
    asked: Sequence[Question],
    *,
    count: Count,
    price: Price | None,
    known: Known,
    latency_s: float = ASSUMED_LATENCY_S,
) -> Plan:
    """Work out what a run would ask, and what that takes.

    Args:
        job: the whole of the run's rows.
        asked: the first round's questions, one or more.
        count: the tokens of a text.
        price: of the model.
        known: what the ledger tells of the judge.
        latency_s: of an answer, where the ledger does not tell.

    Raises:
        ConfigError: `judge.tokens_per_minute` is less than one prompt.
    """
    tokens = _tokens(job, asked, count)
    _refuse_narrow(job.config, tokens.longest_prompt)
    prompt = tokens.prompt if known.prompt_tokens is None else known.prompt_tokens
    answer = tokens.answer if known.answer_tokens is None else known.answer_tokens
    usd = None if price is None else (prompt * price.input_usd + answer * price.output_usd) / 1e6
    drawn = _questions(job, len(asked), known)
    questions = _within_budget(drawn, job.config, known, prompt + answer, usd)
    tokens = replace(tokens, total=round(questions.total * (prompt + answer)))
    latency_s = latency_s if known.latency_s is None else known.latency_s
    time_s, bound_by = _time(job.config, questions.total, tokens.total, latency_s)
    return Plan(
        questions=questions,
        tokens=tokens,
        known=known,
        cost_usd=None if usd is None else usd * questions.total,
        ceiling=_ceiling(job.config, questions.total, tokens, known, price),
        time_s=time_s,
        bound_by=bound_by,
        latency_s=latency_s,
        messages=render(asked[0]),
        schema=answer_schema(asked[0]),
    )


def open_tokenizer(config: RunConfig) -> Count:
    """The tokenizer of `judge.tokenizer`; without one the encoder's own.

    Raises:
        ConfigError: there is none under that name.
        EncoderError: the encoder cannot be found.
    """
    from transformers import AutoTokenizer

    name = config.judge.tokenizer
    place = name or str(find_model(config.encoder.model, config.encoder.revision))
    try:
        with quiet_libraries():
            tokenizer = AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError, LookupError, ImportError) as error:
        raise ConfigError(
            f"judge.tokenizer={name!r} cannot be loaded ({type(error).__name__}); give a folder "
            "that holds tokenizer.json, or a model's name at the hub"
        ) from error

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False, verbose=False))

    return count


def _sampled(job: TrainingJob) -> tuple[str, ...]:
    if len(job.pool) <= MAX_POOL:
        return job.pool
    rng = np.random.default_rng([job.config.seed, 5])
    drawn = np.sort(rng.choice(len(job.pool), MAX_POOL, replace=False))
    return tuple(job.pool[row] for row in drawn)


def _questions(job: TrainingJob, n_first: int, known: Known) -> Questions:
    loop, judge = job.config.loop, job.config.judge
    n_unseen = len(set(job.label_names) - set(job.labels))
    first = n_unseen * TRIES * loop.first_examples
    about_pool = min(len(job.pool), first + loop.max_iterations * loop.samples_per_iteration)
    missing = set(job.label_names) - job.descriptions.keys() if judge.describe_labels else ()
    index = {name: position for position, name in enumerate(job.label_names)}
    labels = np.array([index[label] for label in job.labels[: job.n_seed]], dtype=np.int64)
    gold = GoldRows(labels, judge.gold_share, np.random.default_rng(0))
    planted, descriptions = len(gold.take(about_pool)), len(missing)
    paraphrases = _paraphrases(job, index, grows=n_unseen > 0)
    # Of a larger pool the dry run drew some texts, and the run's first round is another one.
    free = known.n_of_first if len(job.pool) <= MAX_POOL else 0
    total = about_pool + planted + descriptions + paraphrases - free
    return Questions(
        total, about_pool, planted, descriptions, n_first, free, paraphrases=paraphrases
    )


def _paraphrases(job: TrainingJob, index: Mapping[str, int], *, grows: bool) -> int:
    labels = np.array([index[label] for label in job.labels], dtype=np.int64)
    wanted = job.config.judge.paraphrases
    return most_questions(labels, wanted, n_labels=len(index), grows=grows)


def _within_budget(
    questions: Questions, config: RunConfig, known: Known, tokens: float, usd: float | None
) -> Questions:
    """As many of them as the budgets leave, which are for the life of the ledger."""
    judge = config.judge
    budgets = (
        ("judge.budget_calls", judge.budget_calls, known.requests, 1.0),
        ("judge.budget_tokens", judge.budget_tokens, known.tokens, tokens),
        ("judge.budget_usd", judge.budget_usd, known.cost_usd, usd),
    )
    for key, budget, spent, each in budgets:
        if budget is not None and each:
            n_left = math.floor(max(budget - spent, 0) / each + _ROUNDING)
            if n_left < questions.total:
                questions = replace(questions, total=n_left, cut_by=key)
    return questions


def _tokens(job: TrainingJob, asked: Sequence[Question], count: Count) -> Tokens:
    prompts = [
        sum(count(message["content"]) for message in render(one))
        + count(json.dumps(answer_schema(one), ensure_ascii=False))
        for one in asked
    ]
    choose = job.config.judge.question == "choose"
    said = {*job.label_names, none_option(asked[0])} if choose else options(asked[0])
    answers = [count(json.dumps({"answer": word}, ensure_ascii=False)) for word in said]
    return Tokens(
        prompt=sum(prompts) / len(prompts),
        longest_prompt=max(prompts),
        answer=sum(answers) / len(answers),
        longest_answer=max(answers),
        total=0,
    )


def _refuse_narrow(config: RunConfig, longest_prompt: int) -> None:
    a_minute = config.judge.tokens_per_minute
    if a_minute is not None and a_minute < longest_prompt:
        raise ConfigError(
            f"judge.tokens_per_minute={a_minute!r} is less than one prompt of {longest_prompt} "
            "tokens; raise it, or lower judge.top_k or judge.examples_per_candidate"
        )


def _ceiling(
    config: RunConfig, n_questions: int, tokens: Tokens, known: Known, price: Price | None
) -> Ceiling | None:
    judge = config.judge
    if judge.max_answer_tokens is None:
        return None
    # The server may count more than the tokenizer here does.
    prompt = max(tokens.longest_prompt, math.ceil(known.prompt_tokens or 0))
    total, usd = n_questions * (prompt + judge.max_answer_tokens), None
    if judge.budget_tokens is not None:
        total = min(total, max(judge.budget_tokens - known.tokens, 0))
    if price is not None:
        each = (prompt * price.input_usd + judge.max_answer_tokens * price.output_usd) / 1e6
        usd = n_questions * each
        if judge.budget_usd is not None:
            usd = min(usd, max(judge.budget_usd - known.cost_usd, 0.0))
    return Ceiling(total, usd)


def _time(
    config: RunConfig, n_questions: int, n_tokens: int, latency_s: float
) -> tuple[float, str]:
    judge = config.judge
    bounds: Mapping[str, float] = {
        "latency": n_questions * latency_s / judge.concurrency,
        "judge.requests_per_minute": 60 * n_questions / (judge.requests_per_minute or math.inf),
        "judge.tokens_per_minute": 60 * n_tokens / (judge.tokens_per_minute or math.inf),
    }
    bound_by = max(bounds, key=lambda name: bounds[name])
    return bounds[bound_by], bound_by


def _mean(total: float, n: int) -> float | None:
    return total / n if n else None
