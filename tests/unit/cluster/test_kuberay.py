"""The files for KubeRay say what our own files say, hold no secret, and fit KubeRay's schemas."""

from __future__ import annotations

import copy
import os
import shlex
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from red_ray.cli.app import app
from serve.settings import parse_settings
from tests.unit.serve.schema_keys import unknown_keys
from tune.space import load_sweep

pytestmark = pytest.mark.filterwarnings(
    "ignore:Using extra keyword arguments on `Field`"  # Ray's own, when its schema is imported
)

Document = dict[str, Any]

FILES = {"RayService": ("serve", "rayservice.yaml"), "RayJob": ("tune", "rayjob.yaml")}
CLUSTER = {"RayService": "rayClusterConfig", "RayJob": "rayClusterSpec"}
CRDS = "RED_RAY_CRDS"


def documents(kind: str) -> dict[str, Document]:
    """The documents of the file that holds one of a kind, by their kinds."""
    package, name = FILES[kind]
    read = yaml.safe_load_all(files(package).joinpath(name).read_text("utf-8"))
    return {one["kind"]: one for one in read}


@pytest.fixture(params=sorted(FILES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cluster(kind: str) -> Document:
    """The Ray cluster that a file asks for."""
    found: Document = documents(kind)[kind]["spec"][CLUSTER[kind]]
    return found


@pytest.fixture
def groups(cluster: Document) -> list[Document]:
    """Its head, and its groups of workers."""
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


@pytest.fixture(scope="module")
def serve_config() -> Document:
    """The configuration of Serve in the RayService."""
    read: Document = yaml.safe_load(documents("RayService")["RayService"]["spec"]["serveConfigV2"])
    return read


def containers(groups: list[Document]) -> list[Document]:
    """The container of each group; a second one is no business of ours."""
    return [one for group in groups for one in group["template"]["spec"]["containers"]]


def leaves(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its place."""
    if isinstance(data, dict | list):
        inner = data.items() if isinstance(data, dict) else enumerate(data)
        for key, value in inner:
            yield from leaves(value, f"{path}.{key}")
    else:
        yield path.removeprefix("."), data


def test_ray_takes_the_configuration_of_serve(serve_config: Document) -> None:
    from ray.serve.schema import ServeDeploySchema

    ServeDeploySchema.model_validate(serve_config)
    assert not list(unknown_keys(ServeDeploySchema, serve_config))
    misspelt = copy.deepcopy(serve_config)
    misspelt["applications"][0]["deployments"][0]["max_qeued_requests"] = 1
    assert list(unknown_keys(ServeDeploySchema, misspelt))


def test_it_is_our_own_configuration_but_for_what_a_cluster_changes(serve_config: Document) -> None:
    own = yaml.safe_load(files("serve").joinpath("config.yaml").read_text("utf-8"))
    ours, theirs = dict(leaves(own)), dict(leaves(serve_config))
    differ = {place for place in ours | theirs if ours.get(place) != theirs.get(place)}
    app_of, classifier = "applications.0", "applications.0.deployments.0"
    assert differ == {
        "http_options.host",
        f"{app_of}.runtime_env.env_vars.RED_RAY_BUILD",
        f"{app_of}.args.run",
        f"{app_of}.args.shards",  # of a layout that is not used
        f"{classifier}.autoscaling_config.min_replicas",
    }


def test_the_endpoint_takes_its_settings(serve_config: Document) -> None:
    settings = parse_settings(serve_config["applications"][0]["args"])
    assert str(settings.run) == "s3://my-bucket/runs/tickets"


def test_the_build_in_its_environment_is_this_one(
    serve_config: Document, project: Document
) -> None:
    variables = serve_config["applications"][0]["runtime_env"]["env_vars"]
    assert variables == {"RED_RAY_BUILD": project["version"]}


def test_an_endpoint_that_others_reach_has_tokens_from_a_secret(serve_config: Document) -> None:
    assert serve_config["http_options"]["host"] == "0.0.0.0"
    spec = documents("RayService")["RayService"]["spec"]["rayClusterConfig"]
    for one in containers([spec["headGroupSpec"], *spec["workerGroupSpecs"]]):
        (tokens,) = [each for each in one["env"] if each["name"] == "RED_RAY_TOKENS"]
        assert tokens["valueFrom"]["secretKeyRef"] == {"name": "red-ray", "key": "tokens"}


def test_the_proxies_are_haproxy_on_head_and_workers() -> None:
    spec = documents("RayService")["RayService"]["spec"]["rayClusterConfig"]
    for one in containers([spec["headGroupSpec"], *spec["workerGroupSpecs"]]):
        values = {each["name"]: each.get("value") for each in one["env"]}
        assert values["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        assert values["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"


def test_versions_and_images_are_those_of_this_repository(
    cluster: Document, groups: list[Document], pinned_ray: str, project: Document
) -> None:
    assert cluster["rayVersion"] == pinned_ray
    images = {one["image"] for one in containers(groups)}
    assert images == {f"registry.example.com/red-ray:{project['version']}"}


def test_the_head_computes_nothing_and_ray_asks_for_a_token(cluster: Document) -> None:
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert cluster["authOptions"] == {"mode": "token"}


def test_secrets_come_from_secrets(groups: list[Document]) -> None:
    secret = 0
    for one in containers(groups):
        for variable in one["env"]:
            if any(word in variable["name"] for word in ("KEY", "PASSWORD", "TOKEN")):
                assert variable["valueFrom"]["secretKeyRef"]["name"] == "red-ray"
                assert "value" not in variable
                secret += 1
    assert secret >= 2 * len(containers(groups))


def test_no_pod_runs_as_root(groups: list[Document]) -> None:
    for group in groups:
        assert group["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    for one in containers(groups):
        assert one["securityContext"]["allowPrivilegeEscalation"] is False


def test_only_the_endpoint_can_be_reached_from_outside(kind: str, groups: list[Document]) -> None:
    policy = documents(kind)["NetworkPolicy"]["spec"]
    for group in groups:
        assert policy["podSelector"]["matchLabels"] == group["template"]["metadata"]["labels"]
    anybody = [rule for rule in policy["ingress"] if "from" not in rule]
    ports = [port["port"] for rule in anybody for port in rule["ports"]]
    assert ports == ([8000] if kind == "RayService" else [])


def test_the_job_runs_a_sweep_that_we_take(tmp_path: Path) -> None:
    found = documents("RayJob")
    (name, text), *others = found["ConfigMap"]["data"].items()
    assert not others
    path = tmp_path / name
    path.write_text(text, "utf-8")
    sweep = load_sweep(path)
    words = shlex.split(found["RayJob"]["spec"]["entrypoint"])
    assert words[:2] == ["red-ray", "tune"]
    command: Any = typer.main.get_command(app)
    given = command.commands["tune"].make_context("tune", words[2:]).params
    assert given["resume"] is True  # a second cluster goes on where the first was lost
    head = found["RayJob"]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounts = {one["name"]: one["mountPath"] for one in head["containers"][0]["volumeMounts"]}
    assert str(given["file"]) == f"{mounts['sweep']}/{name}"
    shared = Path(mounts["shared"])
    for place in (given["out"], sweep.data.train, sweep.data.test):
        assert shared in Path(str(place)).parents


def test_it_fits_kuberays_schema(kind: str) -> None:
    folder = os.environ.get(CRDS)
    if not folder:
        pytest.skip(f"{CRDS} names no folder with KubeRay's CRDs (config/crd/bases)")
    faults = list(faults_of(documents(kind)[kind], schema_of(kind, Path(folder))))
    assert not faults


def test_that_check_finds_a_misspelt_key_and_a_wrong_kind_of_value(tmp_path: Path) -> None:
    (tmp_path / "crd.yaml").write_text(yaml.safe_dump(_crd()), "utf-8")
    schema = schema_of("RayJob", tmp_path)
    good = {"spec": {"backoffLimit": 2, "labels": {"any": "name"}}}
    assert not list(faults_of(good, schema))
    (fault,) = faults_of({"spec": {"backofLimit": 2}}, schema)
    assert "backofLimit" in fault
    (fault,) = faults_of({"spec": {"backoffLimit": "two"}}, schema)
    assert "'two' is not of type 'integer'" in fault


def schema_of(kind: str, folder: Path) -> Document:
    """KubeRay's schema of a kind, closed: the API server refuses keys that it does not know."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a CRD is a megabyte
    for path in sorted(folder.glob("*.yaml")):
        for one in yaml.load_all(path.read_text("utf-8"), Loader=loader):
            if one and one.get("spec", {}).get("names", {}).get("kind") == kind:
                (version,) = [each for each in one["spec"]["versions"] if each["name"] == "v1"]
                found: Document = closed(version["schema"]["openAPIV3Schema"])
                return found
    raise AssertionError(f"no CRD of {kind} in {str(folder)!r}")


def closed(schema: Any) -> Any:
    """The same schema, in which an object has no other properties than those named."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    named = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if named and not schema.get("x-kubernetes-preserve-unknown-fields"):
        inner.setdefault("additionalProperties", False)
    return inner


def faults_of(document: Document, schema: Document) -> Iterator[str]:
    """What does not fit, and where."""
    from jsonschema import Draft7Validator

    for error in Draft7Validator(schema).iter_errors(document):
        yield f"{error.json_path}: {error.message}"


def _crd() -> Document:
    """As KubeRay's, but small."""
    labels = {"type": "object", "additionalProperties": {"type": "string"}}
    inner = {"backoffLimit": {"type": "integer"}, "labels": labels}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": inner}}}
    version = {"name": "v1", "schema": {"openAPIV3Schema": schema}}
    return {"spec": {"names": {"kind": "RayJob"}, "versions": [version]}}
