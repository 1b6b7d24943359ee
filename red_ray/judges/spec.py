"""From the text that names a judge to the judge."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Mapping
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from red_ray.config import JudgeConfig, Price
from red_ray.errors import ConfigError
from red_ray.judges.base import Judge
from red_ray.judges.language import LanguageJudge
from red_ray.judges.neighbours import NeighboursJudge, Votes
from red_ray.judges.ollama import OllamaTransport
from red_ray.judges.openai import OpenAITransport
from red_ray.judges.simulated import SimulatedJudge

FORMS = "ollama:MODEL, ollama:MODEL@URL, openai:MODEL@BASE_URL, simulated:ACCURACY, neighbours"
WITHOUT_WORDS = ("simulated", "neighbours")
"""Kinds that are no language model: they answer from a run's own rows, at once and free."""

_LOCAL = "127.0.0.1"
_OLLAMA_PORT = 11434
_FREE = Price(input_usd=0, output_usd=0)


def make_judge(
    config: JudgeConfig,
    *,
    seed: int,
    hidden: Callable[[str], str | None] | None = None,
    votes: Votes | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Judge:
    """Make the judge that `config.spec` names.

    Args:
        config: spec, temperature, limits of a request and the name of the key's variable.
        seed: of the simulated judge's draws.
        hidden: true label of a pool text, None where no label is true; for `simulated`.
        votes: nearest labelled examples of a text; for `neighbours`.
        environ: where OLLAMA_HOST and the key are looked up.

    Raises:
        ConfigError: the spec is unknown, or what it needs is missing.
    """
    spec = config.spec or ""
    kind, _, rest = spec.partition(":")
    if kind == "ollama" and rest:
        return LanguageJudge(_ollama(config, rest, environ))
    if kind == "openai" and rest:
        return LanguageJudge(_openai(config, rest, environ))
    if kind in WITHOUT_WORDS:
        _refuse_to_write(config)
    if kind == "simulated" and rest:
        return SimulatedJudge(_accuracy(spec, rest), seed=seed, hidden=_needed(spec, hidden))
    if spec == "neighbours":
        return NeighboursJudge(_needed_votes(votes))
    raise ConfigError(f"unknown judge {spec!r}; use one of: {FORMS}")


def is_here(name: str) -> bool:
    """Whether a judge, by its name, is a server on this machine."""
    try:
        host = urlsplit(name.partition("@")[2]).hostname
    except ValueError:
        return False
    return host is not None and _is_loopback(host)


def price_of(config: JudgeConfig) -> Price | None:
    """What the judge of `config.spec` costs; None where nobody said.

    Ollama's models are free unless `prices` names them.

    Raises:
        ConfigError: the budget is in USD and the price is not known.
    """
    kind, _, rest = (config.spec or "").partition(":")
    if kind in WITHOUT_WORDS:
        return _FREE
    model, _ = _split_address(rest)
    price = config.prices.get(model, _FREE if kind == "ollama" else None)
    if price is None and config.budget_usd is not None:
        raise ConfigError(
            f"judge.budget_usd is {config.budget_usd!r} but the price of {model!r} is not known; "
            f"set input_usd and output_usd of judge.prices under {model!r}"
        )
    return price


def is_simulated(spec: str | None) -> bool:
    """Whether the judge only plays one: it looks the answer up."""
    return (spec or "").startswith("simulated:")


def _ollama(config: JudgeConfig, rest: str, environ: Mapping[str, str]) -> OllamaTransport:
    model, address = _split_address(rest)
    if not model:
        raise ConfigError(f"judge {config.spec!r} names no model; use ollama:MODEL@URL")
    return OllamaTransport(
        model,
        base_url=_ollama_url(address or environ.get("OLLAMA_HOST", "").strip()),
        temperature=config.temperature,
        timeout_s=config.timeout_s,
        max_answer_tokens=config.max_answer_tokens,
    )


def _openai(config: JudgeConfig, rest: str, environ: Mapping[str, str]) -> OpenAITransport:
    model, address = _split_address(rest)
    if not model or not address:
        raise ConfigError(f"judge {config.spec!r} is not complete; use openai:MODEL@BASE_URL")
    url = _parse_url(address)
    key = environ.get(config.key_variable, "").strip()
    if not key and not _is_loopback(url.hostname or ""):
        raise ConfigError(
            f"judge {config.spec!r} needs a key: set the environment variable "
            f"{config.key_variable}, or name another one in judge.key_variable"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the key in {config.key_variable} holds characters no header can carry")
    return OpenAITransport(
        model,
        base_url=url.geturl().rstrip("/"),
        temperature=config.temperature,
        timeout_s=config.timeout_s,
        max_answer_tokens=config.max_answer_tokens,
        api_key=SecretStr(key) if key else None,
        key_variable=config.key_variable,
    )


def _refuse_to_write(config: JudgeConfig) -> None:
    """Refuse what takes a language model of a judge that is none."""
    what = "describe labels: unset judge.describe_labels" if config.describe_labels else ""
    if config.paraphrases:
        what = "write paraphrases: set judge.paraphrases to 0"
    if what:
        raise ConfigError(
            f"judge {config.spec!r} cannot {what}, or use a language model (ollama:MODEL)"
        )


def _accuracy(spec: str, value: str) -> float:
    try:
        accuracy = float(value)
    except ValueError:
        accuracy = -1.0
    if not 0 <= accuracy <= 1:
        raise ConfigError(f"judge {spec!r}: the accuracy must be from 0 to 1, as simulated:0.9")
    return accuracy


def _needed(spec: str, hidden: Callable[[str], str | None] | None) -> Callable[[str], str | None]:
    if hidden is None:
        raise ConfigError(
            f"judge {spec!r} needs the pool's true labels: give the pool a label column, "
            "or use a language model (ollama:MODEL) or neighbours"
        )
    return hidden


def _needed_votes(votes: Votes | None) -> Votes:
    if votes is None:
        raise ConfigError("judge 'neighbours' needs labelled examples: give it training rows")
    return votes


def _split_address(rest: str) -> tuple[str, str]:
    """Model and address; a model's name may hold an @ of its own before the one of the URL."""
    model, found, address = rest.partition("@http")
    if found:
        return model, "http" + address
    model, found, address = rest.rpartition("@")
    return (model, address) if found else (rest, "")


def _ollama_url(address: str) -> str:
    """The server's address; what OLLAMA_HOST may leave out is filled in as Ollama does."""
    if "://" in address:
        return _parse_url(address).geturl().rstrip("/")
    url = _parse_url(f"http://{_LOCAL if address[:1] in ('', ':') else ''}{address}")
    # 0.0.0.0 is where a server listens, not where a client can reach it everywhere.
    host = _LOCAL if url.hostname == "0.0.0.0" else url.hostname or _LOCAL
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{url.port or _OLLAMA_PORT}{url.path.rstrip('/')}"


def _parse_url(address: str) -> SplitResult:
    if "?" in address or "#" in address:
        raise ConfigError("an address of a judge must hold no ? or #; a key goes in its variable")
    try:
        url = urlsplit(address)
        port_fits = url.port is None or url.port > 0
    except ValueError:
        port_fits = False
    if not port_fits or url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError(f"{address!r} is no address of a judge; use http://HOST:PORT/PATH")
    if url.username or url.password:
        # The address enters the ledger, the logs and the run's configuration.
        raise ConfigError("an address of a judge must hold no password; use the key's variable")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
