"""Whatever is sent to the endpoint, it answers, and tells nothing of its inside.

Without Ray, over real HTTP; tests/soak sends more, and to the endpoint on Ray too.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from red_ray.model import RedModel
from serve.settings import JudgeTier, ServeSettings
from tests.services.http_fuzz import OPERATIONS, document_cases, odd_requests, send_broken, send_odd
from tests.services.serving import make_run, on_uvicorn, small_model

N_CASES, SEED = 600, 1


@pytest.fixture(scope="module")
def model() -> RedModel:
    return small_model()


@pytest.fixture(scope="module")
def url(model: RedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    run = tmp_path_factory.mktemp("fuzz") / "run"
    make_run(run, model)
    with on_uvicorn(ServeSettings(run=str(run), judge=JudgeTier(spec="off"))) as url:
        yield url


def test_what_fits_the_document_and_what_does_not_is_answered_as_it_says(url: str) -> None:
    counts = document_cases(url, n_cases=N_CASES, first_seed=SEED)
    assert counts.total() >= N_CASES // 2
    for operation in OPERATIONS:
        assert counts[operation, 200] > 0
        assert counts[operation, 422] > 0


def test_odd_texts_and_bodies_are_answered(url: str, model: RedModel) -> None:
    statuses = send_odd(url, odd_requests(model.labels[0]))
    assert statuses[200] > 20
    assert statuses[422] > 50
    assert statuses[413] > 0
    assert statuses[503] == 0


def test_what_is_no_http_does_no_harm(url: str) -> None:
    send_broken(url)
    assert httpx.get(f"{url}/readyz").status_code == 200
