"""Judges that need no server: the simulated one and the neighbours."""

import math
from collections import Counter

import pytest

from red_ray.judges.neighbours import NeighboursJudge
from red_ray.judges.simulated import SimulatedJudge
from red_ray.types import Outcome, Question, Reply
from tests.unit.judges.fakes import LABELS, question, verify

N = 5_000


def truth_of(text: str) -> str | None:
    """Every fourth text fits no label."""
    number = int(text.split()[1])
    return [*LABELS, None][number % 4]


def judge(accuracy: float, seed: int = 0) -> SimulatedJudge:
    return SimulatedJudge(accuracy, seed=seed, hidden=truth_of)


def is_right(asked: Question, reply: Reply) -> bool:
    return reply.label == truth_of(asked.text)


@pytest.mark.parametrize("accuracy", [0.6, 0.9])
async def test_its_rate_is_within_binomial_bounds(accuracy: float) -> None:
    asked = [question(f"text {i}") for i in range(N)]
    n_right = sum([is_right(q, await judge(accuracy).ask(q)) for q in asked])
    # Four standard deviations: wrong once in 16,000 seeds, and the seed is fixed.
    assert abs(n_right - N * accuracy) < 4 * math.sqrt(N * accuracy * (1 - accuracy))


@pytest.mark.parametrize(("accuracy", "right"), [(1.0, True), (0.0, False)])
async def test_certain_rates_are_exact(accuracy: float, right: bool) -> None:
    for i in range(200):
        asked = question(f"text {i}")
        assert is_right(asked, await judge(accuracy).ask(asked)) is right


async def test_errors_are_spread_over_the_other_options_and_none() -> None:
    asked = [question(f"text {4 * i}") for i in range(N)]  # the truth is the first label
    wrong = Counter([(await judge(0.0).ask(q)).label for q in asked])
    assert set(wrong) == {"card_lost", "top_up", None}
    assert max(wrong.values()) - min(wrong.values()) < 4 * math.sqrt(N)


async def test_none_is_right_where_the_truth_was_not_offered() -> None:
    asked = question("text 0", ["card_lost", "top_up"])
    assert (await judge(1.0).ask(asked)).outcome is Outcome.NONE
    assert (await judge(0.0).ask(asked)).label in {"card_lost", "top_up"}


async def test_order_of_questions_and_candidates_changes_nothing() -> None:
    asked = [question(f"text {i}") for i in range(300)]
    turned = [question(f"text {i}", reversed(LABELS)) for i in range(300)]
    forward = [await judge(0.5).ask(q) for q in asked]
    restarted = judge(0.5)
    backward = [await restarted.ask(q) for q in reversed(turned)]
    assert forward == backward[::-1]


async def test_another_seed_errs_elsewhere() -> None:
    asked = [question(f"text {i}") for i in range(300)]
    assert [await judge(0.5, 1).ask(q) for q in asked] != [
        await judge(0.5, 2).ask(q) for q in asked
    ]
    assert judge(0.5, 1).name != judge(0.5, 2).name


@pytest.mark.parametrize(
    ("text", "accuracy", "outcome"),
    [
        ("text 0", 1.0, Outcome.LABEL),
        ("text 0", 0.0, Outcome.NONE),
        ("text 1", 1.0, Outcome.NONE),
        ("text 1", 0.0, Outcome.LABEL),
        ("text 3", 1.0, Outcome.NONE),
    ],
)
async def test_verify_says_yes_iff_the_truth_is_asked_about(
    text: str, accuracy: float, outcome: Outcome
) -> None:
    assert (await judge(accuracy).ask(verify(text, "card_arrival"))).outcome is outcome


def voting(*votes: tuple[str, float]) -> NeighboursJudge:
    return NeighboursJudge(lambda _: votes)


async def test_neighbours_sum_similarity_by_label() -> None:
    reply = await voting(("top_up", 0.9), ("card_lost", 0.5), ("card_lost", 0.6)).ask(question())
    assert reply == Reply(Outcome.LABEL, "card_lost")


async def test_neighbours_say_none_where_their_label_was_not_offered() -> None:
    assert (await voting(("pin", 0.9), ("top_up", 0.8)).ask(question())).outcome is Outcome.NONE


@pytest.mark.parametrize("votes", [(("b", 0.5), ("a", 0.5)), (("a", 0.5), ("b", 0.5))])
async def test_neighbours_break_ties_by_name(votes: tuple[tuple[str, float], ...]) -> None:
    assert (await voting(*votes).ask(question(labels=["a", "b"]))).label == "a"


async def test_a_dissimilar_example_does_not_vote_against_its_label() -> None:
    votes = (("a", 0.5), ("a", -0.9), ("b", 0.4))
    assert (await voting(*votes).ask(question(labels=["a", "b"]))).label == "a"
    assert (await voting(("a", -0.1)).ask(question(labels=["a"]))).outcome is Outcome.NONE


async def test_no_neighbour_is_no_answer() -> None:
    reply = await voting().ask(question())
    assert reply == Reply(Outcome.UNREADABLE, reason="no labelled example is near the text")


async def test_a_complaint_changes_no_draw() -> None:
    for number in range(20):
        asked = question(f"text {number}")
        assert await judge(0.5).ask(asked, "it was empty") == await judge(0.5).ask(asked)
