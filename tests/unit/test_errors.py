"""Errors cross process borders and are shown to users."""

from __future__ import annotations

import pickle

import pytest

from red_ray import errors
from red_ray.errors import JudgeUnavailable, RedRayError, RunError, UserError


def every_class(root=RedRayError):
    return [root, *(found for child in root.__subclasses__() for found in every_class(child))]


OURS = [cls for cls in every_class() if cls.__module__ == errors.__name__]
MESSAGE = "label 'card' is unknown; give one of 3"


@pytest.mark.parametrize("cls", OURS)
def test_it_survives_a_pickle_round_trip_with_its_message(cls):
    back = pickle.loads(pickle.dumps(cls(MESSAGE)))
    assert type(back) is cls
    assert str(back) == MESSAGE
    assert back.args == cls(MESSAGE).args
    assert vars(back) == vars(cls(MESSAGE))


@pytest.mark.parametrize("cls", OURS)
def test_its_text_is_the_message_in_one_line(cls):
    assert str(cls(MESSAGE)) == MESSAGE
    assert len(str(cls(MESSAGE)).splitlines()) == 1


@pytest.mark.parametrize("cls", OURS)
def test_it_is_documented_and_drawn_in_the_tree(cls):
    assert cls.__doc__
    assert f" {cls.__name__}" in errors.__doc__


def test_an_unavailable_judges_wait_survives_too():
    error = JudgeUnavailable("busy", 2.5)
    back = pickle.loads(pickle.dumps(error))
    assert back.retry_after_s == 2.5
    assert str(back) == "busy"
    assert JudgeUnavailable("busy").retry_after_s is None


@pytest.mark.parametrize("cls", [cls for cls in OURS if cls is not RedRayError])
def test_it_is_either_the_users_mistake_or_a_failure(cls):
    """Exit codes 2 and 1: never both, never neither."""
    assert issubclass(cls, UserError) != issubclass(cls, RunError)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("Traceback:\n  at line 3\n\n ValueError: no \n\n"), "ValueError: no"),
        (RuntimeError(), "their processes died"),
        ("\n \n", "their processes died"),
        ("one line", "one line"),
    ],
)
def test_of_what_an_error_quotes_the_last_line_is_told(error, told):
    assert errors.last_line(error, "their processes died") == told


def test_an_error_without_words_is_told_by_its_class():
    assert errors.last_line(TimeoutError()) == "TimeoutError"
