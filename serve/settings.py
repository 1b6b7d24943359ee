"""What can be set of an endpoint: the `args` of serve/config.yaml, the options of the command."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from red_ray.config import all_keys, faults_of
from red_ray.errors import ConfigError


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Frozen):
    """What a call may hold, and how long it may wait.

    `chars_per_text` None is the model's own `max_chars`. A call is refused with 503 where those
    before it would keep it waiting longer than `wait_s`.
    """

    texts_per_call: int = Field(default=256, ge=1)
    chars_per_text: int | None = Field(default=None, ge=1)
    body_bytes: int = Field(default=4 * 2**20, ge=1024)
    wait_s: float = Field(default=2.0, gt=0)


class JudgeTier(_Frozen):
    """Who is asked about escalated texts, and how long a call waits for it.

    `spec`: None is the judge of the run's configuration, `off` asks nobody. A question that takes
    longer than `wait_s` goes on without the call, whose text stays `escalate`; its answer goes into
    the ledger. `open_questions`: so many of a replica may be under way; a text beyond that is not
    asked about. `truth`: table with labels, which a simulated judge needs and no other may see.
    """

    spec: str | None = None
    wait_s: float = Field(default=10.0, gt=0)
    open_questions: int = Field(default=256, ge=1)
    truth: str | None = None


class ServeSettings(_Frozen):
    """An endpoint.

    Attributes:
        run: folder of a finished run, a link to one, or its address; it is watched, and a new
            bundle taken over.
        layout: `packed`: one replica holds encoder and experts; `sharded`: the experts are spread
            over `shards` deployments.
        threads: of the encoder in a replica; give the replica as many processors.
        batch_texts: texts that go through the encoder together.
        cors_origins: web pages of other hosts that may call; none by default.
        watch_s: how often the run is looked at.
    """

    run: str
    layout: Literal["packed", "sharded"] = "packed"
    shards: int = Field(default=2, ge=1)
    threads: int = Field(default=1, ge=1)
    batch_texts: int = Field(default=64, ge=1)
    limits: Limits = Limits()
    judge: JudgeTier = JudgeTier()
    cors_origins: tuple[str, ...] = ()
    watch_s: float = Field(default=1.0, gt=0)


def parse_settings(data: dict[str, Any]) -> ServeSettings:
    """Validate nested keys; every fault is told in one line.

    Raises:
        ConfigError: a key is unknown or a value does not fit.
    """
    try:
        return ServeSettings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(faults_of(error, all_keys(ServeSettings))) from error
