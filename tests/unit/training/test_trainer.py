"""A run from rows to a model, on a corpus with an encoder and a judge of the test's own."""

from __future__ import annotations

import asyncio
import dataclasses
import random

import numpy as np
import pytest

from red_ray.data.prepare import clean_pool
from red_ray.data.tables import Table
from red_ray.errors import JudgeUnavailable
from red_ray.experts import make_expert
from red_ray.experts.host import training_rows
from red_ray.training import LocalFleet, Trained, Trainer, TrainingJob
from red_ray.types import Outcome
from tests.unit.training.fakes import (
    FakeEncoder,
    FakeValidator,
    RecordingFleet,
    accuracy,
    fingerprint,
    labelled,
    make_corpus,
    run_config,
    train,
    truth,
)

FAILED = (Outcome.TIMEOUT, Outcome.ERROR)


def rows_of(job):
    """Text -> row of the shared vectors."""
    return {text: row for row, text in enumerate((*job.texts, *job.pool))}


@dataclasses.dataclass(frozen=True)
class Run:
    """A whole run with a judge that knows, and all that was asked in it."""

    trained: Trained
    fleet: RecordingFleet
    validator: FakeValidator


@pytest.fixture(scope="module")
def run(corpus):
    fleet, validator = RecordingFleet(), FakeValidator(truth(corpus))
    return Run(asyncio.run(train(corpus.job(), validator, fleet=fleet)), fleet, validator)


@pytest.fixture(scope="module")
def seeds_only(corpus):
    """A run without a judge."""
    return asyncio.run(train(corpus.job()))


def without_times(iterations):
    times = {f.name: 0.0 for f in dataclasses.fields(iterations[0]) if f.name.endswith("_s")}
    return [dataclasses.replace(iteration, **times) for iteration in iterations]


# Without a judge.


def test_it_trains_on_the_labelled_rows_alone(corpus, seeds_only):
    trained = seeds_only
    assert accuracy(trained, corpus) > 0.9
    assert trained.estimate.accuracy > 0.85
    assert (trained.iterations, trained.stop_reason) == ((), "")
    assert labelled(trained) == list(zip(corpus.texts, corpus.labels, strict=True))


def test_one_model_answers_over_all_labels(corpus, seeds_only):
    """Defects 1 and 5: no true label is asked for, each text gets one answer."""
    vectors = FakeEncoder().encode(corpus.test)
    assessment = seeds_only.model.assess(corpus.test, vectors)
    distribution = assessment.distribution
    assert distribution.shape == (len(corpus.test), len(corpus.names) + 1)
    np.testing.assert_allclose(distribution.sum(axis=1), 1, rtol=1e-9)
    decisions = seeds_only.model.decide(assessment)
    assert {decision.label for decision in decisions} - {None} <= set(corpus.names)


async def test_a_single_subset_is_trained_as_well(corpus):
    """No other subset has rows, so the noise is constant: the other evidence must still count."""
    small = make_corpus(8)
    alone = await train(small.job(partition={"subset_size": 8}))
    cut = await train(small.job(partition={"subset_size": 4}))
    assert len(alone.model.subsets) == 1
    assert alone.estimate.log_likelihood > cut.estimate.log_likelihood - 0.1
    assert len(set(np.round(alone.model.router.weights, 2))) > 3  # they left where they started


async def test_two_rows_a_label_are_enough():
    """Fewer rows than folds: some folds hold nothing of a label."""
    trained = await train(make_corpus(3, per_label=2).job(partition={"subset_size": 2}))
    assert np.isfinite(trained.estimate.log_likelihood)


async def test_cross_fitted_estimates_see_through_random_labels(corpus):
    """A row that leaked into its own fit, neighbours or centroid would make this near 1."""
    shuffled = list(corpus.labels)
    random.Random(0).shuffle(shuffled)
    job = dataclasses.replace(corpus.job(), labels=tuple(shuffled))
    trained = await train(job)
    assert trained.estimate.accuracy < 0.35


async def test_hidden_labels_change_nothing_without_a_judge(corpus):
    """Defect 3: what a pool row is called never reaches the training."""
    names = list(corpus.hidden.values())
    random.Random(1).shuffle(names)
    prints = set()
    for labels in (tuple(corpus.hidden.values()), tuple(names)):
        table = Table(texts=corpus.pool, labels=labels)
        pool, _, _ = clean_pool(table, max_chars=1000, known=frozenset())
        job = TrainingJob(corpus.texts, corpus.labels, pool, {}, run_config())
        prints.add(fingerprint(await train(job), corpus))
        asked = FakeValidator(lambda _: None)
        prints.add("refused " + fingerprint(await train(job, asked), corpus))
    assert len(prints) == 2


def test_the_order_of_the_rows_names_no_label(corpus):
    job = corpus.job()
    turned = dataclasses.replace(job, texts=job.texts[::-1], labels=job.labels[::-1])
    assert turned.label_names == job.label_names == tuple(sorted(corpus.names))


@pytest.mark.parametrize("gate", [True, False])
async def test_the_gate_can_be_switched_off(corpus, gate):
    fleet = RecordingFleet()
    trained = await train(corpus.job(router={"gate": gate}), fleet=fleet)
    assert (trained.model.gate is not None) is gate
    assert bool(fleet.gate.fits) is gate
    assert accuracy(trained, corpus) > 0.85


async def test_lexical_evidence_can_be_switched_off(corpus):
    trained = await train(corpus.job(router={"lexical": False}))
    assert trained.model.space is None
    assert accuracy(trained, corpus) > 0.5  # by chance 0.08


async def test_a_result_before_the_end_is_refused(corpus):
    fleet = LocalFleet(FakeEncoder())
    with pytest.raises(RuntimeError, match="has not ended"):
        Trainer(corpus.job(), fleet).result()
    fleet.close()


async def test_the_steps_of_a_run_come_in_order(corpus):
    fleet = LocalFleet(FakeEncoder())
    trainer = Trainer(corpus.job(), fleet, FakeValidator(truth(corpus)))
    stages = [event.stage async for event in trainer.run()]
    fleet.close()
    assert stages[:4] == ["encode", "partition", "fit", "calibrate"]
    assert stages[4:] == ["judge", "loop"] * 3 + ["loop", "final", "final"]


# Noise.


def test_every_experts_noise_class_has_rows(run):
    """Defect 4: in every fit and every fold, and so many that the cap alone could limit them."""
    fleet, trained = run.fleet, run.trained
    assert len(fleet.experts) == len(trained.model.subsets) == 3
    for spec, told in zip(fleet.specs, fleet.experts, strict=True):
        noise_column = len(spec.labels)
        assert told.fits
        assert told.crossfits
        for data in told.fits:
            _, classes = training_rows(spec.labels, data)
            assert (classes == noise_column).sum() >= 8 * 5  # all seed rows of the other 8 labels
        for data in told.crossfits:
            for fold in range(3):
                _, classes = training_rows(spec.labels, data, fold=fold)
                assert (classes == noise_column).sum() > 20


def test_an_expert_calls_a_row_of_another_subset_noise(corpus, seeds_only):
    """Defect 4: an empty noise class would leave the floor in its column."""
    model = seeds_only.model
    vectors = FakeEncoder().encode(corpus.test)
    for subset, expert in zip(model.subsets, model.experts, strict=True):
        noise = np.exp(expert.score(vectors)[:, -1])
        own = np.isin(corpus.test_labels, [model.labels[label] for label in subset])
        assert noise[~own].mean() > 0.7
        assert noise[own].mean() < 0.4


def test_the_final_fit_draws_noise_from_the_rows_gained_too(corpus, run):
    n_seed = len(corpus.texts)
    for told in run.fleet.experts:
        assert told.fits[0].noise.max() < n_seed <= told.fits[-1].noise.max()


# The loop.


def test_the_loop_learns_from_the_judge(corpus, run):
    trained = run.trained
    gained = labelled(trained)[len(corpus.texts) :]
    assert len(gained) == sum(iteration.n_labelled for iteration in trained.iterations) > 25
    assert all(corpus.hidden[text] == label for text, label in gained)
    assert [len(questions) for questions in run.validator.rounds] == [12, 12, 12]


async def test_more_labels_make_a_better_model():
    """Three seed rows a label, and a judge that knows."""
    corpus = make_corpus(12, per_label=3)
    loop = {"samples_per_iteration": 24}
    before = await train(corpus.job())
    after = await train(corpus.job(loop=loop), FakeValidator(truth(corpus)))
    assert accuracy(after, corpus) >= accuracy(before, corpus)
    assert after.estimate.log_likelihood > before.estimate.log_likelihood + 0.1


async def test_only_experts_whose_labels_gained_a_row_are_refitted(corpus):
    """Defect 8: and each of them at once, in the iteration that gained it."""
    favoured = set(corpus.names[:4])

    def answer(question):
        label = corpus.hidden[question.text]
        return label if label in favoured else Outcome.UNREADABLE

    fleet, validator = RecordingFleet(), FakeValidator(answer)
    trained = await train(corpus.job(), validator, fleet=fleet)
    subsets = [{trained.model.labels[i] for i in subset} for subset in trained.model.subsets]
    expected = []
    for questions in validator.rounds:
        gained = {corpus.hidden[q.text] for q in questions} & favoured
        expected.append(tuple(p for p, subset in enumerate(subsets) if subset & gained))
    assert [iteration.experts_refitted for iteration in trained.iterations] == expected
    assert {len(touched) for touched in expected} != {len(subsets)}
    for position, told in enumerate(fleet.experts):
        in_loop = sum(position in touched for touched in expected)
        assert len(told.fits) == 1 + in_loop + 1  # at the start, in the loop, at the end


def test_a_refit_holds_every_row_once(corpus, run):
    """Defect 14: the full current set, the old one not appended to itself."""
    fleet = run.fleet
    sizes = [len(data.rows) for data in fleet.gate.fits]
    n_train = [iteration.n_train for iteration in run.trained.iterations]
    assert sizes == [len(corpus.texts), *n_train, n_train[-1]]
    for told in (*fleet.experts, fleet.gate):
        for data in told.fits:
            assert len(set(data.rows.tolist())) == len(data.rows) == len(data.labels)


async def test_one_text_has_at_most_one_label(corpus):
    """Defect 9: whatever a judge says, no text is learned twice or asked about again."""
    draw = random.Random(0)
    validator = FakeValidator(lambda question: draw.choice(question.candidates).label)
    trained = await train(corpus.job(loop={"max_iterations": 6}), validator)
    texts = [text for text, _ in labelled(trained)]
    assert len(texts) == len(set(texts)) == len(corpus.texts) + 72
    assert len(validator.asked) == len(set(validator.asked)) == 72


async def test_each_question_offers_the_best_labels_once_with_their_own_examples(corpus):
    validator = FakeValidator(truth(corpus))
    trained = await train(corpus.job(judge={"top_k": 4, "examples_per_candidate": 3}), validator)
    known = dict(labelled(trained))
    for question in (q for questions in validator.rounds for q in questions):
        offered = [candidate.label for candidate in question.candidates]
        assert len(set(offered)) == len(offered) == 4
        for candidate in question.candidates:
            assert len(candidate.examples) == 3
            assert {known[text] for text in candidate.examples} == {candidate.label}
            assert question.text not in candidate.examples
    right = [corpus.hidden[q.text] in {c.label for c in q.candidates} for q in validator.rounds[0]]
    assert np.mean(right) > 0.9


async def test_verify_asks_about_the_best_label_alone(corpus):
    validator = FakeValidator(truth(corpus))
    await train(corpus.job(judge={"question": "verify"}), validator)
    questions = [q for questions in validator.rounds for q in questions]
    assert {(q.mode, len(q.candidates)) for q in questions} == {("verify", 1)}


async def test_a_refused_text_is_noise_of_the_refused_labels_experts(corpus):
    """Defect 10: and of no other expert; it gets no label."""
    fleet, validator = RecordingFleet(), FakeValidator(lambda _: None)
    job = corpus.job(judge={"top_k": 2})
    trained = await train(job, validator, fleet=fleet)
    rows = rows_of(job)
    for subset, told in zip(trained.model.subsets, fleet.experts, strict=True):
        names = {trained.model.labels[label] for label in subset}
        expected = {
            rows[question.text]
            for questions in validator.rounds
            for question in questions
            if names & {candidate.label for candidate in question.candidates}
        }
        assert 0 < len(expected) < 36
        final = told.fits[-1]
        assert set(final.refused.tolist()) == expected
        learned, classes = training_rows(subset, final)
        assert {classes[learned == row].item() for row in expected} == {len(subset)}
    assert len(labelled(trained)) == len(corpus.texts)
    assert [iteration.n_none for iteration in trained.iterations] == [12, 12, 12]


async def test_a_refused_text_is_not_asked_about_again(corpus):
    validator = FakeValidator(lambda _: None)
    trained = await train(corpus.job(), validator)
    assert len(set(validator.asked)) == 36
    assert trained.iterations[-1].n_pool == len(corpus.pool) - 36


@pytest.mark.parametrize("outcome", FAILED)
async def test_a_failure_is_no_label_and_leaves_the_text_in_the_pool(corpus, outcome):
    """Defect 11: a time-out or an error is neither a label nor a "no"."""
    fragile = set(corpus.pool[::2])

    def answer(question):
        fails = question.text in fragile and len(validator.rounds) == 1
        return outcome if fails else Outcome.UNREADABLE

    fleet, validator = RecordingFleet(), FakeValidator(answer)
    trained = await train(corpus.job(loop={"max_iterations": 2}), validator, fleet=fleet)
    assert len(labelled(trained)) == len(corpus.texts)
    assert all(told.fits[-1].refused.size == 0 for told in fleet.experts)
    first, second = ({question.text for question in asked} for asked in validator.rounds)
    failed = first & fragile
    assert first & second == failed
    assert 0 < len(failed) < 12
    assert [iteration.n_failed for iteration in trained.iterations] == [len(failed), 0]
    assert trained.iterations[0].n_pool == len(corpus.pool) - (12 - len(failed))


@pytest.mark.parametrize("outcome", FAILED)
async def test_a_judge_that_answers_nothing_ends_the_run_as_a_failure(corpus, outcome):
    """Defect 11: neither a result without the judge nor the same questions for ever."""
    with pytest.raises(JudgeUnavailable, match="no answer to any of 12 questions"):
        await train(corpus.job(), FakeValidator(lambda _: outcome))


@pytest.mark.parametrize("outcome", FAILED)
async def test_a_text_that_always_fails_is_set_aside_and_the_run_goes_on(corpus, outcome):
    """Defect 11: one poisoned text must neither end the run nor be asked about for ever."""
    poisoned = corpus.pool[0]

    def answer(question):
        return outcome if question.text == poisoned else Outcome.UNREADABLE

    validator = FakeValidator(answer)
    await train(corpus.job(loop={"max_iterations": 10, "uncertainty_threshold": 0.0}), validator)
    assert list(validator.asked).count(poisoned) == 2


async def test_an_unreadable_answer_is_no_label_and_no_refusal(corpus):
    """Defect 11: the text is put aside, and nothing is learned from it."""
    fleet, validator = RecordingFleet(), FakeValidator(lambda _: Outcome.UNREADABLE)
    trained = await train(corpus.job(), validator, fleet=fleet)
    assert len(labelled(trained)) == len(corpus.texts)
    assert all(told.fits[-1].refused.size == 0 for told in fleet.experts)
    assert len(set(validator.asked)) == 36
    assert [iteration.n_unreadable for iteration in trained.iterations] == [12, 12, 12]


def backwards(verdicts):
    return verdicts[::-1]


def shuffled(verdicts):
    return random.Random(3).sample(verdicts, len(verdicts))


@pytest.mark.parametrize("arrival", [backwards, shuffled])
async def test_the_order_in_which_verdicts_arrive_changes_nothing(corpus, run, arrival):
    """Defect 22."""
    out_of_order = await train(corpus.job(), FakeValidator(truth(corpus), arrival=arrival))
    assert fingerprint(out_of_order, corpus) == fingerprint(run.trained, corpus)
    assert without_times(out_of_order.iterations) == without_times(run.trained.iterations)


def test_the_whole_pool_is_looked_at(corpus, run):
    """Defect 7: every expert that changed scores every pool text, none only the first ones."""
    n_seed = len(corpus.texts)
    pool = list(range(n_seed, n_seed + len(corpus.pool)))
    for told in (*run.fleet.experts, run.fleet.gate):
        assert told.scored
        assert all(rows.tolist() == pool for rows in told.scored)


def test_an_expert_that_was_refitted_scores_the_pool_again(run):
    """Defect 2: the loop looks with the experts it has, the unchanged ones are not asked twice."""
    touched = [iteration.experts_refitted for iteration in run.trained.iterations]
    for position, told in enumerate(run.fleet.experts):
        assert len(told.scored) == 1 + sum(position in positions for positions in touched)


async def test_the_most_uncertain_are_asked_about_wherever_they_stand(corpus):
    """Defects 6 and 7: the order of the file decides nothing."""
    settings = {"loop": {"max_iterations": 1, "samples_per_iteration": 5}}
    first, last = FakeValidator(lambda _: None), FakeValidator(lambda _: None)
    job = corpus.job(**settings)
    await train(job, first)
    await train(dataclasses.replace(job, pool=job.pool[::-1]), last)
    assert set(first.asked) == set(last.asked)
    assert not set(first.asked) <= set(job.pool[:20])


async def test_uncertain_texts_come_before_certain_ones(corpus, seeds_only):
    """Defect 6: what is asked first is what the model knows least."""
    validator = FakeValidator(lambda _: None)
    settings = {"loop": {"max_iterations": 1, "diversity": 0.0}}
    await train(corpus.job(**settings), validator)
    vectors = FakeEncoder().encode(corpus.pool)
    ranked = np.sort(seeds_only.model.assess(corpus.pool, vectors).distribution, axis=1)
    lead = dict(zip(corpus.pool, ranked[:, -1] - ranked[:, -2], strict=True))
    asked = [lead[text] for text in validator.asked]
    left = [lead[text] for text in corpus.pool if text not in set(validator.asked)]
    assert max(asked) <= min(left)


def test_the_exported_experts_are_those_of_the_final_refit(corpus, run):
    """Defect 2: what the loop learned is in the experts that are handed over."""
    fleet, trained = run.fleet, run.trained
    vectors = FakeEncoder().encode(corpus.test)
    exported = (*trained.model.experts, trained.model.gate)
    gate = dataclasses.replace(fleet.specs[0], labels=tuple(range(12)))
    specs, everyone = (*fleet.specs, gate), (*fleet.experts, fleet.gate)
    for spec, told, expert in zip(specs, everyone, exported, strict=True):
        final = told.fits[-1]
        assert final.rows.tolist() == [rows_of(corpus.job())[text] for text, _ in labelled(trained)]
        refitted, initial = make_expert(spec), make_expert(spec)
        for fresh, data in ((refitted, final), (initial, told.fits[0])):
            rows, classes = training_rows(spec.labels, data)
            fresh.fit(fleet.vectors[rows], classes)
        assert expert.score(vectors).tobytes() == refitted.score(vectors).tobytes()
        assert expert.score(vectors).tobytes() != initial.score(vectors).tobytes()


def test_the_rows_of_the_user_come_first_and_are_counted(corpus, run):
    assert run.trained.model.n_seed == len(corpus.texts)
    assert run.trained.model.example_texts[: run.trained.model.n_seed] == corpus.texts


# When the loop stops.


async def test_an_iteration_without_an_accepted_text_does_not_stop_the_loop(corpus):
    """Defect 21: the first round brings nothing, the later ones do."""
    honest = truth(corpus)
    validator = FakeValidator(lambda q: honest(q) if len(validator.rounds) > 1 else None)
    trained = await train(corpus.job(), validator)
    assert [iteration.n_labelled > 0 for iteration in trained.iterations] == [False, True, True]
    assert trained.iterations[0].experts_refitted == ()
    assert trained.stop_reason == "max_iterations"


async def test_rounds_that_gain_nothing_are_no_plateau(corpus):
    """Defect 21: the same model measured again says nothing new."""
    loop = {"recalibrate_every": 1, "plateau_patience": 1, "max_iterations": 3}
    honest, nothing = truth(corpus), Outcome.UNREADABLE
    validator = FakeValidator(lambda q: honest(q) if len(validator.rounds) > 2 else nothing)
    trained = await train(corpus.job(loop=loop), validator)
    assert [iteration.n_labelled > 0 for iteration in trained.iterations] == [False, False, True]


async def test_informative_only_stops_when_nothing_is_uncertain(corpus):
    loop = {"uncertainty_threshold": 1.0, "max_iterations": 9}
    validator = FakeValidator(truth(corpus))
    trained = await train(corpus.job(loop=loop), validator)
    assert (trained.stop_reason, validator.rounds) == ("no_informative", [])


async def test_the_other_mode_then_asks_about_all_that_is_predicted(corpus):
    loop = {
        "stop_mode": "informative_then_all_predicted",
        "uncertainty_threshold": 1.0,
        "max_iterations": 9,
        "all_predicted_iterations": 2,
    }
    trained = await train(corpus.job(loop=loop), FakeValidator(truth(corpus)))
    assert [iteration.phase for iteration in trained.iterations] == ["all_predicted"] * 2
    assert trained.stop_reason == "all_predicted_done"


async def test_it_goes_through_the_pool_and_stops_at_its_end(corpus):
    loop = {
        "stop_mode": "informative_then_all_predicted",
        "samples_per_iteration": 50,
        "max_iterations": 9,
        "plateau_patience": 9,
    }
    validator = FakeValidator(lambda _: Outcome.UNREADABLE)
    trained = await train(corpus.job(loop=loop), validator)
    assert trained.stop_reason == "pool_exhausted"
    assert sorted(validator.asked) == sorted(corpus.pool)


async def test_the_budget_stops_it_with_what_was_paid_for_kept(corpus):
    """A question that the budget left unasked has no verdict; its text stays in the pool."""
    validator = FakeValidator(truth(corpus), budget=17)
    trained = await train(corpus.job(loop={"max_iterations": 9}), validator)
    assert trained.stop_reason == "budget"
    assert len(validator.asked) == 17
    assert trained.iterations[-1].n_pool == len(corpus.pool) - 17
    assert len(labelled(trained)) > len(corpus.texts)


async def steps_of(job, validator):
    fleet = LocalFleet(FakeEncoder(), n_threads=1)
    trainer = Trainer(job, fleet, validator)
    try:
        told = [step async for step in trainer.run()]
    finally:
        fleet.close()
    return trainer.result(), told


async def test_what_the_budget_left_unasked_is_not_told_as_asked(corpus):
    validator = FakeValidator(truth(corpus), budget=17)
    trained = await train(corpus.job(loop={"max_iterations": 9}), validator)
    assert [one.n_asked for one in trained.iterations] == [12, 5]


async def test_a_budget_that_ends_in_the_last_round_is_the_reason_and_is_named(corpus):
    job = corpus.job(loop={"max_iterations": 2}, judge={"budget_calls": 17, "gold_share": 0.0})
    trained, told = await steps_of(job, FakeValidator(truth(corpus), budget=17))
    assert trained.stop_reason == "budget"
    (line,) = [step.message for step in told if step.message.startswith("stopped")]
    left = "7 questions of the round left unasked; raise judge.budget_calls=17 for more"
    assert line == f"stopped: budget, {left}: `red-ray resume` takes it by --set"


async def test_a_round_that_was_asked_whole_stops_for_its_own_reason(corpus):
    trained = await train(
        corpus.job(loop={"max_iterations": 2}), FakeValidator(truth(corpus), budget=24)
    )
    assert trained.stop_reason == "max_iterations"


async def test_a_spent_budget_still_gives_a_model(corpus, seeds_only):
    trained = await train(corpus.job(), FakeValidator(truth(corpus), budget=0))
    assert (trained.stop_reason, trained.iterations) == ("budget", ())
    assert fingerprint(trained, corpus) == fingerprint(seeds_only, corpus)


async def test_a_run_without_gain_ends_on_a_plateau(corpus):
    """Random labels: the likelihood of the user's rows falls with each of them."""
    draw = random.Random(0)
    validator = FakeValidator(lambda question: draw.choice(question.candidates).label)
    loop = {"recalibrate_every": 1, "plateau_patience": 2, "max_iterations": 6}
    trained = await train(corpus.job(loop=loop), validator)
    assert trained.stop_reason == "plateau"
    assert 2 <= len(trained.iterations) < 6
    assert all(iteration.log_likelihood is not None for iteration in trained.iterations)


async def test_the_router_is_refitted_every_few_iterations(corpus):
    loop = {"recalibrate_every": 2, "max_iterations": 4}
    trained = await train(corpus.job(loop=loop), FakeValidator(truth(corpus)))
    measured = [iteration.log_likelihood is not None for iteration in trained.iterations]
    assert measured == [False, True, False, True]


# Partition.


async def test_auto_takes_the_strategy_of_the_higher_likelihood(corpus):
    fixed = {
        strategy: await train(corpus.job(partition={"strategy": strategy}))
        for strategy in ("similar", "dissimilar")
    }
    chosen = await train(corpus.job(partition={"strategy": "auto"}))
    best = max(fixed, key=lambda strategy: fixed[strategy].estimate.log_likelihood)
    other = next(strategy for strategy in fixed if strategy != best)
    assert chosen.strategy == f"auto ({best})"
    assert fingerprint(chosen, corpus) == fingerprint(fixed[best], corpus)
    assert fingerprint(chosen, corpus) != fingerprint(fixed[other], corpus)


def test_similar_puts_a_family_under_one_expert(seeds_only):
    assert sorted(seeds_only.model.subsets) == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]


async def test_a_random_partition_follows_the_seed(corpus):
    """Defect 22."""
    job = corpus.job(partition={"strategy": "random"})
    other = dataclasses.replace(job, config=job.config.model_copy(update={"seed": 7}))
    subsets = [(await train(one)).model.subsets for one in (job, job, other)]
    assert subsets[0] == subsets[1] != subsets[2]


@pytest.mark.parametrize(
    ("partition", "reductions"),
    [
        ({"umap_dim": 3}, [(12, 3)]),
        ({"umap_dim": 4}, []),  # 12 labels are too few for 4 dimensions
        ({"umap_dim": None}, []),
        ({"umap_dim": 3, "strategy": "random"}, []),
    ],
)
async def test_umap_runs_only_where_there_are_labels_enough(corpus, partition, reductions):
    fleet = RecordingFleet()
    await train(corpus.job(partition=partition), fleet=fleet)
    assert fleet.reductions == reductions


# Repeating a run.


async def test_the_same_seed_gives_the_same_result(corpus):
    """Defect 22: to the last bit, and so does another number of threads."""
    settings = {"noise": {"cap": 20}, "loop": {"acquisition": "random"}}
    runs = [
        await train(corpus.job(**settings), FakeValidator(truth(corpus)), n_threads=n_threads)
        for n_threads in (1, 1, 3)
    ]
    assert len({fingerprint(run, corpus) for run in runs}) == 1
    assert all(without_times(run.iterations) == without_times(runs[0].iterations) for run in runs)


async def test_another_seed_draws_anew(corpus):
    """Else the test above would hold for a seed that nothing reads."""
    settings = {"noise": {"cap": 20}, "loop": {"acquisition": "random"}}
    job = corpus.job(**settings)
    other = dataclasses.replace(job, config=job.config.model_copy(update={"seed": 43}))
    prints = {
        fingerprint(await train(one, FakeValidator(truth(corpus))), corpus) for one in (job, other)
    }
    assert len(prints) == 2


async def test_chosen_texts_come_with_their_labels_as_events(corpus):
    fleet = LocalFleet(FakeEncoder())
    trainer = Trainer(corpus.job(), fleet, FakeValidator(truth(corpus)))
    gained = [pair async for event in trainer.run() for pair in event.gained]
    fleet.close()
    names = [(corpus.pool[position], label) for position, label in gained]
    assert names == labelled(trainer.result())[len(corpus.texts) :]
