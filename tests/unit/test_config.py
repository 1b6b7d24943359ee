"""The configuration: preset, then file, then overrides; every fault told in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pydantic
import pytest
import yaml

import red_ray
from red_ray.config import (
    PRESETS,
    Goal,
    RunConfig,
    all_keys,
    dump_config,
    load_config,
    parse_config,
)
from red_ray.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def written(text):
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def message(error):
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_the_defaults_are_those_of_the_design():
    config = load_config()
    assert (config.mode, config.seed) == ("speed", 42)
    assert (config.partition.strategy, config.partition.subset_size) == ("similar", 8)
    assert (config.noise.cap, config.noise.factor) == (4000, None)
    assert config.router.gate
    judge = config.judge
    assert (judge.question, judge.top_k, judge.timeout_s) == ("choose", 5, 150)
    assert (judge.temperature, judge.concurrency, judge.budget_calls) == (0, 16, None)
    loop = config.loop
    assert loop.stop_mode == "informative_only"
    assert (loop.max_iterations, loop.samples_per_iteration) == (10, 100)


@pytest.mark.parametrize(
    ("mode", "model", "kind", "umap_dim"),
    [
        ("speed", "all-MiniLM-L6-v2", "logistic_regression", 32),
        ("balanced", "all-mpnet-base-v2", "random_forest", 50),
        ("accuracy", "Qwen/Qwen3-Embedding-0.6B", "setfit", 64),
    ],
)
def test_a_mode_sets_encoder_expert_and_reduction(mode, model, kind, umap_dim):
    config = load_config(overrides={"mode": mode})
    assert config.encoder.model == model
    assert config.expert.kind == kind
    assert config.partition.umap_dim == umap_dim


@pytest.mark.parametrize("mode", PRESETS)
def test_every_key_of_a_preset_is_in_force(mode):
    """Defect 20: no preset sets a key that nothing holds."""
    resolved = load_config(overrides={"mode": mode}).model_dump()
    for section, values in PRESETS[mode].items():
        assert resolved[section] | values == resolved[section]


def test_a_file_wins_over_the_preset_and_an_override_over_both(write):
    """Defect 18: what the command line gives reaches the configuration that is used."""
    path = write("mode: balanced\npartition: {umap_dim: 9, subset_size: 5}\nseed: 1\n")
    config = load_config(path, {"partition": {"subset_size": 6}})
    assert config.expert.kind == "random_forest"  # the preset of the file's mode
    assert config.partition.umap_dim == 9  # the file over the preset
    assert config.partition.subset_size == 6  # the override over the file
    assert config.seed == 1


def test_another_model_brings_no_prompt_of_the_modes_own(write, tmp_path):
    config = load_config(overrides={"mode": "accuracy", "encoder": {"model": "all-MiniLM-L6-v2"}})
    assert (config.encoder.prompt, config.encoder.truncate_dim) == ("", None)
    assert (config.expert.kind, config.partition.umap_dim) == ("setfit", 64)
    own = load_config(overrides={"mode": "accuracy"}).encoder
    here = {"mode": "accuracy", "encoder": {"model": str(tmp_path)}}
    assert load_config(overrides=here).encoder.prompt == own.prompt  # it may be the model itself
    over = {"encoder": {"model": "other", "prompt": "query: "}}
    config = load_config(write("mode: accuracy\n"), over)
    assert (config.encoder.prompt, config.encoder.truncate_dim) == ("query: ", None)


def test_an_overridden_mode_brings_its_own_preset(write):
    config = load_config(write("mode: balanced\n"), {"mode": "speed"})
    assert config.expert.kind == "logistic_regression"


def test_merging_leaves_the_presets_alone(write):
    load_config(write("encoder: {model: mine}\n"), {"expert": {"kind": "random_forest"}})
    assert load_config().encoder.model == "all-MiniLM-L6-v2"
    assert load_config().expert.kind == "logistic_regression"


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}\n"])
def test_an_empty_file_changes_nothing(write, text):
    assert load_config(write(text)) == load_config()


def test_an_unknown_key_is_refused_with_the_nearest_one(write):
    """Defect 20: a key that nothing reads is no key."""
    with pytest.raises(ConfigError, match=r"'loop\.max_iteration'") as error:
        load_config(write("loop: {max_iteration: 3}\n"))
    assert "did you mean 'loop.max_iterations'?" in message(error)


def test_an_unknown_section_is_refused():
    with pytest.raises(ConfigError, match="unknown configuration key 'zzzz'") as error:
        parse_config({"zzzz": 1})
    assert "did you mean" not in message(error)


@pytest.mark.parametrize(
    "text",
    [
        "mode: speed\nseed: 1\nmode: balanced\n",
        "loop:\n  max_iterations: 3\n  max_iterations: 4\n",
        "loop: {max_iterations: 3}\nseed: 2\nloop: {samples_per_iteration: 4}\n",
    ],
)
def test_a_key_that_stands_twice_is_refused(write, text):
    """Defect 19: YAML would keep the last one in silence, and the mode with it."""
    with pytest.raises(ConfigError, match=r"'(mode|max_iterations|loop)' twice") as error:
        load_config(write(text))
    message(error)


@pytest.mark.parametrize(
    ("data", "where", "value"),
    [
        ({"mode": "fast"}, "mode", "'fast'"),
        ({"partition": {"subset_size": 1}}, "partition.subset_size", "1"),
        ({"loop": {"stop_mode": "never"}}, "loop.stop_mode", "'never'"),
        ({"judge": {"timeout_s": "soon"}}, "judge.timeout_s", "'soon'"),
        ({"judge": {"temperature": float("nan")}}, "judge.temperature", "nan"),
        ({"router": {"none_prior": 0}}, "router.none_prior", "0"),
        ({"noise": {"cap": 0}}, "noise.cap", "0"),
        ({"loop": 3}, "loop", "3"),
        ({"seed": -1}, "seed", "-1"),
    ],
)
def test_a_bad_value_is_quoted_with_its_key(data, where, value):
    with pytest.raises(ConfigError) as error:
        parse_config(data)
    assert message(error).startswith(f"{where}: ")
    assert message(error).endswith(f"got {value}")


def test_all_faults_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        parse_config({"seed": -1, "noise": {"cap": 0}, "nose": {}})
    assert message(error).count("; ") == 3  # three faults, and the remedy of one
    assert all(key in message(error) for key in ("seed: ", "noise.cap: ", "key 'nose'"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mode: [speed\n", "is not valid YAML"),
        ("- 1\n- 2\n", "must hold keys and values, found list"),
        ("just words\n", "must hold keys and values, found str"),
        ("loop: !!python/object:os.system {}\n", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(write, text, expected):
    with pytest.raises(ConfigError) as error:
        load_config(write(text))
    assert expected in message(error)
    assert "config.yaml" in message(error)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the configuration '.*missing\.yaml'"):
        load_config(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"text_column: caf\xe9\n")
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"mode": "balanced", "noise": {"factor": 2.0}, "encoder": {"store": "/tmp/red-ray"}},
        {"encoder": {"store": "s3://bucket/embeddings?region=eu-central-1"}},
        {"judge": {"question": "verify", "spec": "ollama:qwen3:8b"}},
        {"text_column": "größe", "seed": 7},
    ],
)
def test_a_dumped_configuration_reads_back_the_same(write, overrides):
    config = load_config(overrides=overrides)
    assert load_config(write(dump_config(config))) == config


def test_a_dump_holds_every_key_in_the_order_of_the_fields():
    dumped = yaml.safe_load(dump_config(load_config()))
    assert list(dumped) == list(RunConfig.model_fields)


def test_verify_asks_about_one_candidate():
    assert parse_config({"judge": {"question": "verify"}}).judge.top_k == 1
    assert parse_config({"judge": {"question": "choose", "top_k": 3}}).judge.top_k == 3


def test_a_configuration_cannot_be_changed():
    config = load_config()
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config.loop.max_iterations = 3
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config.seed = 3


def test_every_key_is_read_by_some_part():
    """Defect 20: a key that the code never looks at would be a promise that nothing keeps."""
    package = Path(red_ray.__file__).parent
    files = [path for path in package.rglob("*.py") if path.name != "config.py"]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    leaves = [key.split(".")[-1] for key in all_keys(RunConfig)]
    # Goals are read by their names, as a promise is made for whichever are stated.
    read = {name: rf'"{name}"' if name in Goal.model_fields else rf"\.{name}\b" for name in leaves}
    assert [name for name, pattern in read.items() if not re.search(pattern, code)] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("judge: 5\n", "judge must hold keys and values, got 5"),
        ("judge: hello\n", "judge must hold keys and values, got 'hello'"),
        ("judge:\nconcurrency: 3\n", "judge holds nothing; check the indentation"),
        ("audit:\n  criteria: [1]\n", r"audit\.criteria must hold keys and values, got \[1\]"),
    ],
)
@pytest.mark.parametrize("overrides", [{}, {"judge": {"spec": "neighbours"}}])
def test_a_section_without_keys_is_refused_whatever_is_overridden(write, text, told, overrides):
    with pytest.raises(ConfigError, match=told):
        load_config(write(text), overrides)


def test_a_criterion_may_still_ask_nothing(write):
    text = "audit: {criteria: {success_rate: null}}\n"
    assert load_config(write(text)).audit.criteria.success_rate is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (Path("runs/store"), "runs/store"),
        ("runs//store/", "runs/store"),
        ("s3://bucket//store/", "s3://bucket//store/"),
        (None, None),
    ],
)
def test_a_store_is_a_path_or_an_address(given, kept):
    assert parse_config({"encoder": {"store": given}}).encoder.store == kept


def test_a_store_with_a_secret_is_refused_and_the_secret_not_told():
    with pytest.raises(ConfigError, match=r"'s3://bucket/x'.*config\.yaml would keep it") as told:
        parse_config({"encoder": {"store": "s3://key:pass-word@bucket/x"}})
    assert "pass-word" not in str(told.value)
