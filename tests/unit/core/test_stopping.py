"""Stopping: why the loop ends, and what is no reason to end it."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from red_ray.config import LoopConfig
from red_ray.core.stopping import LoopState, StopMode, StopRule

ONLY: StopMode = "informative_only"
THEN_ALL: StopMode = "informative_then_all_predicted"
GOING = LoopState(
    iteration=2,
    phase="informative",
    iterations_in_phase=2,
    n_informative=50,
    n_predicted=80,
    log_likelihoods=[-1.0],
)


def rule(stop_mode=ONLY, **changed):
    limits = {
        "max_iterations": 10,
        "all_predicted_iterations": 3,
        "plateau_patience": 2,
        "plateau_min_gain": 0.0,
    }
    return StopRule(stop_mode=stop_mode, **(limits | changed))


def state(**changed):
    return dataclasses.replace(GOING, **changed)


def test_the_stop_modes_bear_the_references_names():
    names = typing.get_args(StopMode)
    assert names == ("informative_only", "informative_then_all_predicted")
    assert typing.get_args(LoopConfig.model_fields["stop_mode"].annotation) == names


@pytest.mark.parametrize("mode", [ONLY, THEN_ALL])
def test_it_goes_on_while_there_is_something_to_ask(mode):
    assert rule(mode).reason(GOING) is None
    assert rule(mode).next_phase(GOING) == "informative"


def test_informative_only_ends_when_nothing_is_uncertain():
    done = state(n_informative=0)
    assert rule(ONLY).next_phase(done) == "informative"
    assert rule(ONLY).reason(done) == "no_informative"


def test_the_other_mode_then_asks_about_all_that_is_predicted():
    done = state(n_informative=0)
    assert rule(THEN_ALL).next_phase(done) == "all_predicted"
    assert rule(THEN_ALL).reason(state(n_informative=0, phase="all_predicted")) is None


def test_it_never_turns_back_to_the_informative():
    again = state(phase="all_predicted", n_informative=9, iterations_in_phase=1)
    assert rule(THEN_ALL).next_phase(again) == "all_predicted"


@pytest.mark.parametrize(("n_done", "reason"), [(0, None), (2, None), (3, "all_predicted_done")])
def test_all_predicted_takes_a_few_iterations(n_done, reason):
    asked = state(phase="all_predicted", n_informative=0, iterations_in_phase=n_done)
    assert rule(THEN_ALL).reason(asked) == reason


def test_it_ends_with_the_pool():
    empty = state(phase="all_predicted", n_informative=0, n_predicted=0, iterations_in_phase=0)
    assert rule(THEN_ALL).reason(empty) == "pool_exhausted"


@pytest.mark.parametrize(("iteration", "reason"), [(9, None), (10, "max_iterations")])
def test_it_ends_at_the_limit(iteration, reason):
    assert rule().reason(state(iteration=iteration)) == reason


def test_an_iteration_without_an_accepted_text_is_no_reason():
    """Defect 21: the state that the rules see does not even say what was accepted."""
    assert not {"n_accepted", "n_labelled"} & {f.name for f in dataclasses.fields(LoopState)}
    assert rule().reason(state(iteration=1, iterations_in_phase=1)) is None


PLATEAUS = {
    "rising": ([-1.0, -0.9, -0.8], None),
    "too short to say": ([-1.0, -1.1], None),
    "falling twice": ([-1.0, -1.1, -1.2], "plateau"),
    "standing still": ([-1.0, -1.0, -1.0], "plateau"),
    "one bad, then better than ever": ([-1.0, -1.1, -0.9], None),
    "better than the last two, not than the best": ([-0.5, -0.9, -0.8], "plateau"),
    "a gain, then a fall": ([-1.0, -0.8, -1.1], None),
    "better than the last before, not than the best": ([-0.5, -1.0, -0.9, -0.8], "plateau"),
    "late": ([-1.0, -0.9, -0.8, -0.85, -0.82], "plateau"),
}


@pytest.mark.parametrize("history", PLATEAUS)
def test_it_ends_on_a_plateau(history):
    likelihoods, reason = PLATEAUS[history]
    assert rule().reason(state(log_likelihoods=likelihoods)) == reason


def test_a_gain_must_be_larger_than_the_least_gain():
    rising = state(log_likelihoods=[-1.0, -0.96, -0.92])
    assert rule(plateau_min_gain=0.05).reason(rising) is None
    assert rule(plateau_min_gain=0.1).reason(rising) == "plateau"


def test_the_patience_is_the_measurements_without_a_gain():
    history = state(log_likelihoods=[-1.0, -1.1, -1.2])
    assert rule(plateau_patience=1).reason(state(log_likelihoods=[-1.0, -1.1])) == "plateau"
    assert rule(plateau_patience=3).reason(history) is None
