"""serve/config.yaml is what Ray takes it for: Ray itself accepts misspelt keys in silence."""

from __future__ import annotations

import copy
from importlib.resources import files
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from red_ray.actors.environment import CALLS_PER_REPLICA
from red_ray.cli.serve import ANSWER_S
from red_ray.errors import ConfigError
from serve.settings import ServeSettings, parse_settings
from tests.unit.serve.schema_keys import unknown_keys

pytestmark = pytest.mark.filterwarnings(
    "ignore:Using extra keyword arguments on `Field`"  # Ray's own, when its schema is imported
)


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(files("serve").joinpath("config.yaml").read_text("utf-8"))
    return read


@pytest.fixture(scope="module")
def schema() -> type[BaseModel]:
    from ray.serve.schema import ServeDeploySchema

    return ServeDeploySchema


@pytest.fixture(scope="module")
def settings(config: dict[str, Any]) -> ServeSettings:
    return parse_settings(config["applications"][0]["args"])


def test_ray_takes_it(config: dict[str, Any], schema: type[BaseModel]) -> None:
    schema.model_validate(config)


def test_it_has_no_key_that_ray_does_not_know(
    config: dict[str, Any], schema: type[BaseModel]
) -> None:
    assert not list(unknown_keys(schema, config))


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ([], "aplications"),
        (["http_options"], "prot"),
        (["logging_config"], "log_levle"),
        (["applications", 0], "route_prefx"),
        (["applications", 0, "deployments", 0], "max_qeued_requests"),
        (["applications", 0, "deployments", 0, "ray_actor_options"], "num_cpu"),
    ],
)
def test_a_misspelt_key_would_be_found(
    config: dict[str, Any], schema: type[BaseModel], place: list[Any], wrong: str
) -> None:
    changed = copy.deepcopy(config)
    inner: Any = changed
    for step in place:
        inner = inner[step]
    inner[wrong] = 1
    (found,) = unknown_keys(schema, changed)
    assert found.endswith(wrong)


def test_a_misspelt_argument_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="layuot"):
        parse_settings(config["applications"][0]["args"] | {"layuot": "packed"})


def test_ray_builds_the_application_from_it(config: dict[str, Any]) -> None:
    from ray.serve import Application
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as built

    from serve.deployments import build

    args = config["applications"][0]["args"]
    for layout in ("packed", "sharded"):
        assert isinstance(built(build, args | {"layout": layout}), Application)
    with pytest.raises(ConfigError, match="layuot"):
        built(build, args | {"layuot": "packed"})


def test_it_configures_the_deployments_that_there_are(config: dict[str, Any]) -> None:
    from serve import deployments as ours

    (app,) = config["applications"]
    assert app["name"] == ours.APP
    assert app["import_path"] == f"{ours.__name__}:{ours.build.__name__}"
    classifier, desk = app["deployments"]
    assert [classifier["name"], desk["name"]] == [ours.CLASSIFIER, ours.DESK]
    assert classifier["max_ongoing_requests"] == CALLS_PER_REPLICA
    assert classifier["max_queued_requests"] == ours.MAX_QUEUED
    assert desk["num_replicas"] == 1


def test_a_replica_has_a_processor_for_each_thread_of_the_encoder(
    config: dict[str, Any], settings: ServeSettings
) -> None:
    classifier = config["applications"][0]["deployments"][0]
    assert classifier["ray_actor_options"]["num_cpus"] == settings.threads


def test_a_call_may_take_as_long_as_the_waits_in_it(
    config: dict[str, Any], settings: ServeSettings
) -> None:
    waits_s = settings.limits.wait_s + settings.judge.wait_s
    assert config["http_options"]["request_timeout_s"] == ANSWER_S + waits_s


def test_metrics_and_logs_name_a_run_without_a_secret() -> None:
    from serve.deployments import _name

    assert _name("s3://key:secret@bucket/runs/one?secret_key=hidden") == "one"
    assert _name("s3://key:secret@bucket") == "bucket"
    assert _name("runs/one") == "one"
