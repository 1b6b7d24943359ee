"""From a spec to a judge."""

from typing import Any

import pytest

from red_ray.config import JudgeConfig, Price
from red_ray.errors import ConfigError
from red_ray.judges import Judge, make_judge
from red_ray.judges.spec import is_here, price_of


def make(spec: str | None, *, hidden: bool = True, votes: bool = True, **environ: str) -> Judge:
    return make_judge(
        JudgeConfig(spec=spec),
        seed=7,
        hidden=(lambda _: None) if hidden else None,
        votes=(lambda _: []) if votes else None,
        environ=environ,
    )


@pytest.mark.parametrize(
    ("spec", "host", "name"),
    [
        ("ollama:qwen3:8b", "", "ollama:qwen3:8b@http://127.0.0.1:11434"),
        ("ollama:qwen3:8b", "0.0.0.0", "ollama:qwen3:8b@http://127.0.0.1:11434"),
        ("ollama:qwen3:8b", ":1234", "ollama:qwen3:8b@http://127.0.0.1:1234"),
        ("ollama:qwen3:8b", "box:1234/", "ollama:qwen3:8b@http://box:1234"),
        ("ollama:qwen3:8b", "[::1]", "ollama:qwen3:8b@http://[::1]:11434"),
        ("ollama:qwen3:8b", "https://box/ollama/", "ollama:qwen3:8b@https://box/ollama"),
        ("ollama:m@http://box:1", "other", "ollama:m@http://box:1"),
        ("ollama:m@box:1", "other", "ollama:m@http://box:1"),
        ("ollama:user/m@v2@http://box:1", "", "ollama:user/m@v2@http://box:1"),
    ],
)
def test_ollama_takes_the_address_of_the_spec_or_of_the_environment(
    spec: str, host: str, name: str
) -> None:
    assert make(spec, OLLAMA_HOST=host).name == f"{name}?temperature=0.0"


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
def test_openai_on_loopback_needs_no_key(host: str) -> None:
    judge = make(f"openai:m@http://{host}/v1/")
    assert judge.name == f"openai:m@http://{host}/v1?temperature=0.0"


def test_openai_elsewhere_needs_a_key_and_says_where_it_is_looked_for() -> None:
    with pytest.raises(ConfigError, match="set the environment variable OPENAI_API_KEY"):
        make("openai:m@https://openrouter.ai/api/v1")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        make("openai:m@https://openrouter.ai/api/v1", OPENAI_API_KEY="  ")
    make("openai:m@https://openrouter.ai/api/v1", OPENAI_API_KEY="sk-1\n")


def test_the_variable_of_the_key_can_be_named() -> None:
    config = JudgeConfig(spec="openai:m@https://h/v1", key_variable="ROUTER_KEY")
    with pytest.raises(ConfigError, match="ROUTER_KEY"):
        make_judge(config, seed=0, environ={"OPENAI_API_KEY": "sk-1"})
    make_judge(config, seed=0, environ={"ROUTER_KEY": "sk-1"})


def test_a_key_that_breaks_the_header_is_refused_unseen() -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        make("openai:m@https://h/v1", OPENAI_API_KEY="sk-secret\r\nX: y")
    assert "secret" not in str(caught.value)


def test_the_identity_holds_accuracy_and_seed() -> None:
    assert make("simulated:.9").name == "simulated:0.9?seed=7"


def test_simulated_needs_hidden_labels_and_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="give the pool a label column"):
        make("simulated:0.9", hidden=False)


def test_neighbours_needs_examples() -> None:
    assert make("neighbours").name == "neighbours"
    with pytest.raises(ConfigError, match="training rows"):
        make("neighbours", votes=False)


@pytest.mark.parametrize(
    "spec", ["simulated:1.1", "simulated:-0.1", "simulated:nan", "simulated:x"]
)
def test_an_accuracy_out_of_range_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match=f"{spec!r}: the accuracy must be from 0 to 1"):
        make(spec)


@pytest.mark.parametrize(
    "spec",
    [None, "", "gpt-4", "ollama", "ollama:", "openai:", "simulated", "neighbours:3", "Ollama:m"],
)
def test_an_unknown_spec_lists_the_forms(spec: str | None) -> None:
    with pytest.raises(ConfigError, match=r"ollama:MODEL.*openai:MODEL@BASE_URL.*simulated.*neigh"):
        make(spec)


@pytest.mark.parametrize(
    "spec",
    ["openai:m", "openai:@http://h/v1", "ollama:@http://h", "openai:m@ftp://h", "openai:m@http://"],
)
def test_an_incomplete_address_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError):
        make(spec, OPENAI_API_KEY="k")


@pytest.mark.parametrize("url", ["http://h:99999", "http://h:x", "http://[::1"])
def test_an_address_that_does_not_parse_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        make(f"ollama:m@{url}")


@pytest.mark.parametrize("spec", ["openai:m@https://u:hunter2@h/v1", "ollama:m@http://u:hunter2@h"])
def test_a_password_in_the_address_is_refused_unseen(spec: str) -> None:
    with pytest.raises(ConfigError, match="no password") as caught:
        make(spec, OPENAI_API_KEY="k")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("end", ["?api_key=hunter2", "#hunter2", ":x/?k=hunter2"])
def test_a_query_in_the_address_is_refused_unseen(end: str) -> None:
    for spec in (f"openai:m@https://h{end}", f"ollama:m@http://h{end}", f"ollama:m@h{end}"):
        with pytest.raises(ConfigError, match=r"no \? or #") as caught:
            make(spec, OPENAI_API_KEY="k")
        assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"no \? or #"):
        make("ollama:m", OLLAMA_HOST=f"h{end}")


def test_temperature_is_part_of_the_identity() -> None:
    config = JudgeConfig(spec="ollama:m", temperature=0.5)
    assert make_judge(config, seed=0, environ={}).name.endswith("?temperature=0.5")


@pytest.mark.parametrize("spec", ["simulated:0.9", "neighbours"])
@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ({"describe_labels": True}, "describe labels: unset judge.describe_labels"),
        ({"paraphrases": 10}, "write paraphrases: set judge.paraphrases to 0"),
    ],
)
def test_only_a_language_model_writes(spec: str, setting: dict[str, Any], what: str) -> None:
    config = JudgeConfig(spec=spec, **setting)
    with pytest.raises(ConfigError, match=f"{spec!r} cannot {what}, or use .*ollama:") as caught:
        make_judge(config, seed=0, hidden=lambda _: None, votes=lambda _: [], environ={})
    assert "\n" not in str(caught.value)
    make_judge(JudgeConfig(spec="ollama:m", **setting), seed=0, environ={})


PRICES = {
    "user/m@v2": Price(input_usd=1, output_usd=2),
    "qwen3:8b": Price(input_usd=3, output_usd=4),
}
FREE = Price(input_usd=0, output_usd=0)


@pytest.mark.parametrize(
    ("spec", "price"),
    [
        ("simulated:0.9", FREE),
        ("neighbours", FREE),
        ("ollama:other", FREE),
        ("ollama:qwen3:8b", PRICES["qwen3:8b"]),
        ("ollama:qwen3:8b@http://h:1", PRICES["qwen3:8b"]),
        ("openai:user/m@v2@https://h/v1", PRICES["user/m@v2"]),
        ("openai:other@https://h/v1", None),
        (None, None),
    ],
)
def test_a_price_is_that_of_the_model_and_local_judges_are_free(
    spec: str | None, price: Price | None
) -> None:
    assert price_of(JudgeConfig(spec=spec, prices=PRICES)) == price


def test_a_budget_in_usd_needs_a_price_and_says_where_to_put_it() -> None:
    with pytest.raises(ConfigError, match=r"budget_usd is 5\.0.*judge\.prices under 'm'") as caught:
        price_of(JudgeConfig(spec="openai:m@https://h/v1", budget_usd=5, prices=PRICES))
    assert "\n" not in str(caught.value)
    assert price_of(JudgeConfig(spec="ollama:m", budget_usd=5)) == FREE


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("openai:m@http://127.0.0.1:9/v1?temperature=0.0", True),
        ("ollama:m:8b@http://localhost:11434?temperature=0.0", True),
        ("openai:m@http://[::1]:9/v1?temperature=0.0", True),
        ("openai:m@https://host/v1?temperature=0.0", False),
        ("simulated:0.9", False),
        ("fake", False),
    ],
)
def test_a_judge_on_this_machine_is_known_by_its_name(name, here):
    assert is_here(name) is here
