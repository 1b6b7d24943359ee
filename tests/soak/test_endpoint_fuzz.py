"""Ten thousand cases from the OpenAPI document, and odd calls, with Ray and without."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from red_ray.model import RedModel
from serve.settings import JudgeTier, Limits, ServeSettings
from tests.services.http_fuzz import (
    ODD_TEXTS,
    OPERATIONS,
    document_cases,
    odd_requests,
    send_broken,
    send_odd,
)
from tests.services.serving import Served, make_run, on_uvicorn, place, small_model

RESULTS = Path(__file__).with_name("results") / "endpoint_fuzz.md"
N_CASES, N_ON_RAY = 10_000, 1_000

JSON = {"Content-Type": "application/json"}

HEAD = """\
| endpoint | cases | by status |
|---|---:|---|
"""


@pytest.fixture(scope="module")
def model() -> RedModel:
    return small_model()


@pytest.fixture(scope="module")
def run(model: RedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "run"
    make_run(path, model)
    return path


@pytest.fixture(scope="module")
def rows() -> Iterator[list[str]]:
    """A row for each endpoint; kept when both were fuzzed."""
    found: list[str] = []
    yield found
    if len(found) == 2:
        RESULTS.parent.mkdir(exist_ok=True)
        intro = (
            "schemathesis against `/openapi.json`, then odd texts and bodies: no status 500, 502 "
            "or 504, no traceback, and every answer as the document says. Made by `make soak` "
            "(tests/soak/test_endpoint_fuzz.py).\n\n"
        )
        RESULTS.write_text(intro + HEAD + "".join(found), encoding="utf-8")


def fuzz(url: str, model: RedModel, n_cases: int) -> str:
    counts = document_cases(url, n_cases=n_cases, first_seed=2)
    for operation in OPERATIONS:
        assert counts[operation, 200] > 0
        assert counts[operation, 422] > 0
    statuses = send_odd(url, odd_requests(model.labels[0]))
    for (_, status), n_answers in counts.items():
        statuses[status] += n_answers
    send_broken(url)
    assert httpx.get(f"{url}/readyz").status_code == 200
    return f"{statuses.total()} | {told(statuses)} |\n"


def told(statuses: Counter[int]) -> str:
    return ", ".join(f"{status}: {n}" for status, n in sorted(statuses.items()))


def test_the_endpoint_without_ray(run: Path, model: RedModel, rows: list[str]) -> None:
    with on_uvicorn(ServeSettings(run=str(run), judge=JudgeTier(spec="off"))) as url:
        # A call that has no parameters has one case, and half of the cases are wrong on purpose.
        rows.append(f"| uvicorn | {fuzz(url, model, N_CASES + 200)}")


def test_the_endpoint_on_ray(run: Path, model: RedModel, rows: list[str], tmp_path: Path) -> None:
    with place(tmp_path) as here, Served(here, run, "--replicas", "2") as served:
        rows.append(f"| Ray Serve, HAProxy | {fuzz(served.url, model, N_ON_RAY)}")


def test_odd_texts_of_a_mebibyte_are_decided_where_the_limits_allow_it(
    run: Path, model: RedModel
) -> None:
    limits = Limits(chars_per_text=2**21, body_bytes=2**24)
    settings = ServeSettings(run=str(run), judge=JudgeTier(spec="off"), limits=limits)
    with on_uvicorn(settings) as url:
        for name, text in ODD_TEXTS.items():
            body = {"texts": [text * (2**20 // max(1, len(text)))], "explain": True}
            # As ASCII: half of a surrogate pair has no UTF-8.
            data = json.dumps(body).encode("ascii")
            answer = httpx.post(f"{url}/v1/classify", content=data, headers=JSON, timeout=60)
            expected = 200 if text.strip() else 422
            assert answer.status_code == expected, (name, answer.text[:300])
