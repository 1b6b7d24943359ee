"""The criteria of an audit: stated before, in order, and of a size that can be met."""

from __future__ import annotations

import pytest

from red_ray.config import Criterion, parse_config
from red_ray.errors import ConfigError


def criteria(**stated):
    return parse_config({"audit": {"criteria": stated}}).audit.criteria


def test_accuracy_and_readability_have_criteria_by_default():
    found = parse_config({}).audit.criteria
    stated = {name for name, limits in found if limits is not None}
    assert stated == {"accuracy", "success_rate", "unreadable_rate"}
    assert (found.accuracy.go, found.accuracy.abort) == (0.85, 0.7)


def test_a_criterion_can_be_added_and_another_dropped():
    found = criteria(accuracy=None, p95_latency_s={"go": 2, "abort": 5})
    assert found.accuracy is None
    assert found.p95_latency_s == Criterion(go=2, abort=5)


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"accuracy": {"go": 0.5, "abort": 0.7}}, "accuracy.go must not be below accuracy.abort"),
        (
            {"p95_latency_s": {"go": 5, "abort": 2}},
            "p95_latency_s.go must not be above p95_latency_s.abort",
        ),
        ({"accuracy": {"go": 85, "abort": 0.7}}, "less than or equal to 1"),
        ({"accuracy": {"go": 0.9}}, "accuracy.abort' is missing"),
        (
            dict.fromkeys(("accuracy", "success_rate", "unreadable_rate")),
            "an audit needs at least one criterion",
        ),
        ({"speed": {"go": 1, "abort": 2}}, "unknown configuration key"),
    ],
)
def test_criteria_that_cannot_be_meant_are_refused(stated, words):
    with pytest.raises(ConfigError, match=words) as refused:
        criteria(**stated)
    assert len(str(refused.value).splitlines()) == 1


def test_go_and_abort_may_meet():
    assert criteria(accuracy={"go": 0.8, "abort": 0.8}).accuracy.go == 0.8
