"""What a judge writes for poor labels: learned where it helps, and counted as no row anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from red_ray.bundle import save_bundle
from red_ray.core.text import text_key
from red_ray.errors import JudgeError, JudgeUnavailable
from red_ray.evaluation.details import run_details
from red_ray.experts import ExpertHost, FitRows
from red_ray.experts.host import written_rows
from red_ray.judges import Ledger, ValidatorPool
from red_ray.training import LocalFleet, PoolValidator, Trained, Trainer, TrainingJob
from red_ray.training.paraphrases import examples_of_poor, most_questions
from red_ray.types import FIRST_EXAMPLES, Outcome, Progress, Question, Reply
from tests.unit.training.fakes import (
    Corpus,
    FakeEncoder,
    FakeValidator,
    RecordingFleet,
    accuracy,
    fingerprint,
    labelled,
    make_corpus,
    run_config,
    truth,
)
from tests.unit.training.test_tuned import SETFIT, ParrotFleet

N_LABELS, PER_LABEL, WANTED = 8, 4, 7
N_ASKED = N_LABELS * (WANTED - PER_LABEL)
Words = Callable[[Question], str | Outcome]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus(N_LABELS, per_label=PER_LABEL, test_per_label=40)


def job_of(corpus: Corpus, *, has_pool: bool = False, **judge: object) -> TrainingJob:
    settings = {"paraphrases": WANTED, "paraphrase_weight": 1.0, **judge}
    job = corpus.job(judge=settings, loop={"max_iterations": 1})
    return job if has_pool else replace(job, pool=())


def helpful(question: Question) -> str:
    """Says the label's words, which some texts of the corpus leave out."""
    family, topic = question.candidates[0].label.split("_")
    return f"{family} {topic} {topic} again {question.text.split()[-1]}"


def nonsense(question: Question) -> str:
    return f"far from everything {question.text.split()[-1]} {question.candidates[0].label}"


def echo(question: Question) -> str:
    return f"{question.text} thanks"


def writing(corpus: Corpus, words: Words) -> Callable[[Question], str | Outcome | None]:
    say = truth(corpus)
    return lambda one: words(one) if one.mode == "paraphrase" else say(one)


@dataclass
class Run:
    """A run, what its experts were asked, and what it told."""

    trained: Trained
    fleet: LocalFleet
    validator: FakeValidator
    told: list[Progress]

    @property
    def asked(self) -> list[Question]:
        rounds = self.validator.rounds
        return [one for questions in rounds for one in questions if one.mode == "paraphrase"]


def run(
    job: TrainingJob,
    corpus: Corpus,
    words: Words,
    *,
    fleet: LocalFleet | None = None,
    budget: int | None = None,
    arrival: Callable[[list], list] = list,
) -> Run:
    async def to_the_end() -> Run:
        used = fleet or RecordingFleet()
        validator = FakeValidator(writing(corpus, words), budget=budget, arrival=arrival)
        trainer = Trainer(job, used, validator)
        told = [step async for step in trainer.run()]
        used.close()
        return Run(trainer.result(), used, validator, told)

    return asyncio.run(to_the_end())


@pytest.fixture(scope="module")
def helped(corpus) -> Run:
    return run(job_of(corpus), corpus, helpful)


@pytest.fixture(scope="module")
def without(corpus) -> Run:
    return run(job_of(corpus, paraphrases=0), corpus, helpful)


# Which examples.


@pytest.mark.parametrize(
    ("labels", "wanted", "chosen"),
    [
        ([0, 1, 0, 1, 0], 3, [1]),  # label 1 has two and lacks one: its first
        ([0, 1, 0, 1, 0], 5, [0, 1, 2, 3]),
        ([0, 1, 0, 1, 0], 99, [0, 1, 2, 3, 4]),  # each at most once
        ([0, 1, 0, 1, 0], 2, []),
        ([2, 2, 5], 2, [2]),  # a label that no row has
        ([], 5, []),
    ],
)
def test_a_poor_label_gets_what_it_lacks_of_its_first_examples(labels, wanted, chosen):
    assert examples_of_poor(np.array(labels, dtype=np.int64), wanted).tolist() == chosen


def test_the_most_questions_are_those_of_the_worst_case():
    labels = np.array([0, 0, 0, 1, 1, 2, 4, 4, 4, 4, 4, 4, 4])
    for wanted in range(12):
        n_chosen = len(examples_of_poor(labels, wanted))
        assert most_questions(labels, wanted, n_labels=6, grows=False) == n_chosen
        grown = [len(examples_of_poor(np.zeros(n, np.int64), wanted)) for n in range(wanted + 8)]
        counts = np.bincount(labels, minlength=6)
        worst = sum(max(grown[n:], default=0) for n in counts)
        assert most_questions(labels, wanted, n_labels=6, grows=True) == worst


def test_a_question_holds_its_text_and_no_other_example(corpus, helped):
    """What says a row again tells nothing of the rows of other folds."""
    label_of = dict(zip(corpus.texts, corpus.labels, strict=True))
    assert len(helped.asked) == len({one.text for one in helped.asked}) == N_ASKED
    for question in helped.asked:
        (candidate,) = question.candidates
        assert candidate.label == label_of[question.text]
        assert candidate.examples == ()


def test_rich_labels_are_not_asked_about(corpus):
    assert run(job_of(corpus, paraphrases=PER_LABEL), corpus, helpful).asked == []


# Where they help, and where not.


def test_they_help_where_the_judge_does(corpus, helped, without):
    """On 160 test texts 93 % instead of 85."""
    assert all(one.learned for one in helped.trained.paraphrases)
    assert accuracy(helped.trained, corpus) > accuracy(without.trained, corpus) + 0.05


def test_they_are_kept_only_where_more_held_out_rows_are_right(corpus, tmp_path):
    """One family is helped, the other told nothing: of its rows as many are right, and not more."""

    def words(question: Question) -> str:
        is_helped = question.candidates[0].label.startswith("family0")
        return helpful(question) if is_helped else nonsense(question)

    found = run(job_of(corpus), corpus, words)
    model = found.trained.model
    for position, told in enumerate(found.fleet.experts):
        plain, taught = sorted(told.crossfits, key=lambda data: data.written is not None)
        n_right = [right_rows(found, position, data) for data in (plain, taught)]
        assert bool(model.written_counts[position]) == (n_right[1] > n_right[0])
    kept = {one.label[:7] for one in found.trained.paraphrases if one.learned}
    assert kept == {"family0"}
    assert sum(model.written_counts) == N_ASKED // 2
    assert {one.by for one in found.trained.paraphrases} == {"fake"}


def test_a_judge_that_does_harm_is_not_believed_where_an_expert_gains(corpus):
    """Of one family it says the labels' words, of the other those of their siblings."""

    def words(question: Question) -> str:
        if question.candidates[0].label.startswith("family1"):
            return helpful(question)
        number = int(question.candidates[0].label[-2:])
        return f"family0 topic{(number + 1) % 4:02d} {question.text.split()[-1]}"

    found = run(job_of(corpus), corpus, words)
    gains = []
    for position, told in enumerate(found.fleet.experts):
        plain, taught = sorted(told.crossfits, key=lambda data: data.written is not None)
        gains.append(right_rows(found, position, taught) - right_rows(found, position, plain))
    assert max(gains) > 0 >= sum(gains)
    assert found.trained.model.written_counts == ()


def test_as_many_right_rows_are_not_more(corpus):
    """What helps at its full weight decides no row at almost none."""
    found = run(job_of(corpus, paraphrase_weight=1e-6), corpus, helpful)
    assert len(found.trained.paraphrases) == N_ASKED
    assert found.trained.model.written_counts == ()


def right_rows(found: Run, position: int, data: FitRows) -> int:
    """Rows of its own labels that an expert told apart, their folds left out."""
    host = ExpertHost([found.fleet.specs[position]])
    host.load(found.fleet.vectors)
    subset = np.array(found.fleet.specs[position].labels)
    own = np.isin(data.labels, subset)
    best = host.crossfit(0, data)[own, :-1].argmax(axis=1)
    return int((subset[best] == data.labels[own]).sum())


def test_experts_and_gate_learn_the_kept_ones_beside_all_rows(helped):
    fleet, counts = helped.fleet, helped.trained.model.written_counts
    for spec, told, n_learned in zip(fleet.specs, fleet.experts, counts, strict=True):
        (data,) = told.fits
        assert len(written_rows(spec.labels, data)[0]) == n_learned
        assert (data.written is not None) == bool(n_learned)
        tried = [one.written is not None for one in told.crossfits]
        assert sorted(tried) == [False, True]  # with and without, and once each
    (of_gate,) = fleet.gate.fits
    assert len(of_gate.written.rows) == sum(counts)
    (held,) = fleet.gate.crossfits
    np.testing.assert_array_equal(held.written.rows, of_gate.written.rows)


def test_none_is_an_example_a_noise_row_or_a_row_at_all(corpus, helped, without):
    """Neither of retrieval, nor of calibration, nor of what anybody is shown as a label."""
    for name in ("example_texts", "noise_counts", "n_seed", "labelled_by", "unseen"):
        assert getattr(helped.trained.model, name) == getattr(without.trained.model, name)
    written = {one.text for one in helped.trained.paraphrases}
    assert written.isdisjoint(text for text, _ in labelled(helped.trained))
    assert len(helped.trained.model.calibration.right) == len(corpus.texts)
    np.testing.assert_array_equal(helped.trained.model.space.idf, without.trained.model.space.idf)
    crossfit = helped.trained.crossfit
    assert len(crossfit.folds) == len(crossfit.gate) == len(corpus.texts)
    n_rows = len(corpus.texts)
    for told in (*helped.fleet.experts, helped.fleet.gate):
        assert all(data.rows.max() < n_rows for data in (*told.fits, *told.crossfits))


def test_what_does_not_help_leaves_no_bit_behind(corpus, tmp_path, without):
    useless = run(job_of(corpus), corpus, nonsense)
    assert len(useless.trained.paraphrases) == N_ASKED
    assert not any(one.learned for one in useless.trained.paraphrases)
    ids = {
        save_bundle(one.trained.model, tmp_path / str(at), {})
        for at, one in enumerate((useless, without))
    }
    assert len(ids) == 1
    assert useless.trained.estimate == without.trained.estimate
    assert fingerprint(useless.trained, corpus) == fingerprint(without.trained, corpus)


def test_none_is_learned_by_the_fold_that_holds_what_it_says_again(corpus, helped):
    sources = [one.source for one in helped.trained.paraphrases]
    row_of = {text: row for row, text in enumerate(corpus.texts)}
    n_checked = 0
    for spec, told in zip(helped.fleet.specs, helped.fleet.experts, strict=True):
        for data in (one for one in told.crossfits if one.written is not None):
            for fold in range(3):
                rows, _ = written_rows(spec.labels, data, fold=fold)
                learned = [row_of[sources[row - len(corpus.texts)]] for row in rows]
                assert (data.folds[learned] != fold).all()
                n_checked += len(learned)
    assert n_checked == 2 * N_ASKED  # each in two of three folds


def test_cross_fitted_estimates_see_through_random_labels(corpus):
    """An echo that the fold of its text had learned would make this near 1."""
    labels = tuple(np.random.default_rng(0).permutation(corpus.labels).tolist())
    shuffled = replace(corpus, labels=labels)
    found = run(job_of(shuffled, paraphrases=2 * PER_LABEL), shuffled, echo)
    assert len(found.trained.paraphrases) == len(corpus.texts)
    assert found.trained.estimate.accuracy < 0.4


def test_the_loop_and_the_last_fit_go_on_with_them(corpus):
    found = run(job_of(corpus, has_pool=True), corpus, helpful)
    n_texts = len(corpus.texts) + len(corpus.pool)
    assert len(found.trained.iterations) == 1
    assert (
        len(labelled(found.trained)) == len(corpus.texts) + found.trained.iterations[0].n_labelled
    )
    for told in found.fleet.experts:
        written = [data.written for data in told.fits if data.written is not None]
        assert all(one.rows.min() >= n_texts for one in written)
        assert all((rows < n_texts).all() for rows in told.scored)
    assert len(found.asked) == N_ASKED  # once, though it was fitted twice


def test_the_order_of_the_answers_changes_nothing(corpus, helped):
    turned = run(job_of(corpus), corpus, helpful, arrival=lambda verdicts: verdicts[::-1])
    assert turned.trained.paraphrases == helped.trained.paraphrases
    assert fingerprint(turned.trained, corpus) == fingerprint(helped.trained, corpus)


def test_heads_over_fine_tuned_vectors_learn_them_and_the_fine_tuning_does_not(corpus):
    job = job_of(corpus)
    config = job.config.model_copy(update={"expert": run_config(**SETFIT).expert})
    fleet = ParrotFleet()
    found = run(replace(job, config=config), corpus, helpful, fleet=fleet)
    written = {one.text for one in found.trained.paraphrases}
    assert len(written) == N_ASKED
    assert all(written.isdisjoint(seen) for _, seen in fleet.tuned)
    assert len(found.trained.crossfit.encoders) == 3


def test_a_cold_start_has_its_first_examples_said_again():
    pooled = make_corpus(N_LABELS, per_label=1, pool_per_label=12)
    config = run_config(judge={"paraphrases": 6}, loop={"first_examples": 3, "max_iterations": 1})
    names = (*pooled.names, "family9_topic99")
    job = TrainingJob((), (), pooled.pool, {}, config, names)
    found = run(job, pooled, helpful)
    assert found.trained.model.unseen == ("family9_topic99",)  # a name is no text to say again
    assert {one.text for one in found.asked} <= set(pooled.pool)
    for name in pooled.names:
        n_first = sum(
            pooled.hidden[one.text] == name
            for questions in found.validator.rounds[: _n_first(found)]
            for one in questions
        )
        n_said_again = sum(one.candidates[0].label == name for one in found.asked)
        assert n_said_again == min(n_first, max(0, 6 - n_first))


def _n_first(found: Run) -> int:
    return sum(one.phase == FIRST_EXAMPLES for one in found.trained.iterations)


# What is no new text, and what the judge does not say.


def test_only_new_texts_within_the_limit_are_taken_and_the_others_counted(corpus):
    first, second, third, fourth, fifth, sixth = (corpus.texts[4 * at] for at in range(6))
    said = {
        first: f"  {first.upper()} ",
        second: corpus.texts[-1],
        third: "said by two",
        fourth: "Said by  two",
        fifth: "x" * 101,
        sixth: "what the thresholds rest on",
    }

    def words(question: Question) -> str | Outcome:
        if question.text == corpus.texts[24]:
            return Outcome.UNREADABLE
        return said.get(question.text) or helpful(question)

    job = job_of(corpus)
    config = job.config.model_copy(update={"max_chars": 100})
    job = replace(job, config=config, apart=frozenset({text_key(said[sixth])}))
    found = run(job, corpus, words)
    texts = {one.text for one in found.trained.paraphrases}
    assert texts.isdisjoint({*said.values()} - {"said by two"})
    assert "said by two" in texts
    (told,) = (one.message for one in found.told if one.stage == "judge" and one.message)
    assert told == (
        f"{N_ASKED - 6} paraphrases by the judge for 8 labels; 1 without an answer; "
        "4 dropped, a text that was there before; 1 dropped, longer than max_chars"
    )


def test_it_is_told_which_experts_keep_them(helped, without):
    (told,) = (one.message for one in helped.told if one.stage == "calibrate")
    counts = helped.trained.model.written_counts
    names = [f"expert-{position:02d}" for position, n in enumerate(counts) if n]
    assert told.endswith(f"; paraphrases kept by {len(names)} of 2 experts ({', '.join(names)})")
    (plain,) = (one.message for one in without.told if one.stage == "calibrate")
    assert "paraphrases" not in plain
    details = run_details(helped.trained, "fake")["paraphrases"]
    expected = {"n_written": N_ASKED, "n_labels": N_LABELS, "n_learned": sum(counts)}
    assert details == expected | {"experts": names}
    assert "paraphrases" not in run_details(without.trained, "fake")


def test_a_budget_that_ends_in_the_middle_leaves_what_was_written(corpus):
    found = run(job_of(corpus, has_pool=True), corpus, helpful, budget=5)
    assert [one.source for one in found.trained.paraphrases] == [one.text for one in found.asked]
    assert len(found.asked) == 5
    told = [one.message for one in found.told if one.stage == "judge" and one.message]
    assert told[0].endswith(f"; {N_ASKED - 5} left unasked, as the budget is used up")
    assert found.trained.stop_reason == "budget"


@pytest.mark.parametrize("outcome", [Outcome.TIMEOUT, Outcome.ERROR])
def test_a_judge_that_is_away_stops_the_run_before_anything_is_fitted(corpus, outcome):
    fleet = RecordingFleet()
    with pytest.raises(JudgeUnavailable, match=f"no answer to any of {N_ASKED} questions"):
        run(job_of(corpus), corpus, lambda _: outcome, fleet=fleet)
    assert fleet.n_opened == 0


# Over a ledger.


class Writer:
    """Paid for each answer; fails where it is told to."""

    name = "writer"

    def __init__(self, corpus: Corpus, *, fails_after: int | None = None) -> None:
        self.asked: list[Question] = []
        self._say = writing(corpus, helpful)
        self._fails_after = fails_after

    async def ask(self, question: Question, complaint: str = "") -> Reply:
        self.asked.append(question)
        if self._fails_after is not None and len(self.asked) > self._fails_after:
            raise JudgeError("away")
        label = self._say(question)
        return Reply(Outcome.NONE) if label is None else Reply(Outcome.LABEL, label)

    async def close(self) -> None:
        """Nothing to release."""


def over_ledger(job: TrainingJob, ledger: Ledger, judge: Writer) -> Trained:
    async def to_the_end() -> Trained:
        pool = ValidatorPool(judge, ledger, job.config.judge)
        fleet = LocalFleet(FakeEncoder(), n_threads=1)
        trainer = Trainer(job, fleet, PoolValidator(pool, judge.name, "run"))
        try:
            async for _ in trainer.run():
                pass
        finally:
            await pool.close()
            fleet.close()
        return trainer.result()

    return asyncio.run(to_the_end())


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def test_what_was_written_is_never_paid_for_twice(corpus, ledger):
    job = job_of(corpus, has_pool=True)
    first, second = Writer(corpus), Writer(corpus)
    trained, again = over_ledger(job, ledger, first), over_ledger(job, ledger, second)
    assert second.asked == []
    assert again.paraphrases == trained.paraphrases
    assert fingerprint(again, corpus) == fingerprint(trained, corpus)


def test_what_failed_is_asked_again_and_comes_to_the_same(corpus, ledger, tmp_path):
    job = job_of(corpus)
    broken, mended, whole = Writer(corpus, fails_after=10), Writer(corpus), Writer(corpus)
    partly = over_ledger(job, ledger, broken)
    assert len(partly.paraphrases) == 10
    resumed = over_ledger(job, ledger, mended)
    assert {one.text for one in mended.asked} == {one.text for one in broken.asked[10:]}
    other = Ledger(tmp_path / "other.sqlite")
    undisturbed = over_ledger(job, other, whole)
    other.close()
    assert resumed.paraphrases == undisturbed.paraphrases
    assert fingerprint(resumed, corpus) == fingerprint(undisturbed, corpus)


def test_under_a_budget_it_resumes_to_the_same(corpus, ledger):
    job = job_of(corpus, budget_calls=9)
    first, second = Writer(corpus), Writer(corpus)
    trained, again = over_ledger(job, ledger, first), over_ledger(job, ledger, second)
    assert (len(first.asked), second.asked) == (9, [])
    assert again.paraphrases == trained.paraphrases
    assert len(trained.paraphrases) == 9
