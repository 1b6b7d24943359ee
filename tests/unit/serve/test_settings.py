"""What can be set of an endpoint, and how a slip is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from red_ray.config import read_yaml
from red_ray.errors import ConfigError
from serve.settings import ServeSettings, parse_settings

CONFIG = Path(__file__).parents[3] / "serve" / "config.yaml"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"run": "r", "layuot": "packed"}, ("'layuot'", "did you mean 'layout'?")),
        (
            {"run": "r", "limits": {"text_per_call": 3}},
            ("'limits.text_per_call'", "did you mean 'limits.texts_per_call'?"),
        ),
        ({"run": "r", "judge": {"wait": 3}}, ("did you mean 'judge.wait_s'?",)),
        ({"run": "r", "quite_else": 1}, ("unknown configuration key 'quite_else'",)),
        ({}, ("the key 'run' is missing",)),
        ({"run": "r", "layout": "spread"}, ("layout", "'packed' or 'sharded'", "got 'spread'")),
        ({"run": "r", "limits": {"wait_s": 0}}, ("limits.wait_s", "greater than 0", "got 0")),
        ({"run": "r", "limits": {"body_bytes": 10}}, ("limits.body_bytes", "1024", "got 10")),
        ({"run": "r", "judge": "ollama:m"}, ("judge",)),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(given, words):
    with pytest.raises(ConfigError) as refused:
        parse_settings(given)
    assert "\n" not in str(refused.value)
    for word in words:
        assert word in str(refused.value)


def test_all_faults_are_told_at_once():
    with pytest.raises(ConfigError, match=r"threads.*'shard'"):
        parse_settings({"run": "r", "shard": 2, "threads": 0})


def test_a_run_is_all_that_must_be_given():
    assert parse_settings({"run": "r"}) == ServeSettings(run="r")


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        parse_settings({"run": "r"}).run = "other"  # type: ignore[misc]


def test_the_shipped_configuration_is_one():
    """Each deployment's arguments are settings; `serve deploy` reads them first."""
    for application in read_yaml(CONFIG)["applications"]:
        parse_settings(application["args"])
