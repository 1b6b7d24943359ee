"""The FastAPI application of the endpoint; runs under Ray Serve and under any ASGI server."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from red_ray.errors import DataError, RedRayError
from serve.batcher import OverloadedError
from serve.gate import REQUEST_ID, App, Gate, Message, Receive, Scope, Send
from serve.schemas import (
    ClassifyAnswer,
    ClassifyRequest,
    ErrorAnswer,
    Feedback,
    FeedbackAnswer,
    FeedbackRequest,
    ModelInfo,
    Queue,
    Stats,
)
from serve.service import Service

_log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"

ABOUT = """Classifies short texts into many labels, says how sure it is, and asks a judge where that
pays. Every answer names the bundle that gave it."""

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The body cannot be read"},
    401: {"model": ErrorAnswer, "description": "No token, or a wrong one"},
    413: {"model": ErrorAnswer, "description": "The body is too large"},
    422: {
        "model": ErrorAnswer,
        "description": "The body is no JSON, or a text or a value cannot be used",
    },
    503: {"model": ErrorAnswer, "description": "Overloaded: come back after `Retry-After` seconds"},
}

MAX_FAULTS = 3
"""Of a body that are told."""

OF_USERS = {"texts", "answers"}
"""Parts of a body whose content is never repeated: an error may stand in a log."""


KEYS = (
    *ClassifyRequest.model_fields,
    *FeedbackRequest.model_fields,
    *Feedback.model_fields,
)
"""Of bodies, at any depth."""


def make_app(
    service: Service, tokens: Sequence[str] = (), *, tells_request_id: bool = True
) -> FastAPI:
    """The application over a service, which it opens and closes.

    Args:
        service: answers.
        tokens: who may call; none lets everybody through.
        tells_request_id: whether answers carry the request's id; Serve adds it by itself.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.opened():
            yield

    app = FastAPI(
        title="red_ray", description=ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    _add_calls(app, service)
    _add_page(app)
    _add_errors(app, service)
    settings = service.settings
    app.add_middleware(_Failures, service=service)
    app.add_middleware(
        Gate,
        tokens=tokens,
        body_bytes=settings.limits.body_bytes,
        tells_request_id=tells_request_id,
    )
    if settings.cors_origins:
        # Outside of the gate: a browser asks whether it may call before it sends a token, and
        # shows its page no refusal that lacks these headers.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", REQUEST_ID],
            expose_headers=[REQUEST_ID, "retry-after"],
        )
    return app


class _Failures:
    """ASGI: what nobody expected is answered in one line, and told in full to the log alone.

    Behind the gate, unlike a handler of FastAPI's for any exception: so that this answer has the
    headers of all others.
    """

    def __init__(self, app: App, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        has_begun = False

        async def passed_on(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, passed_on)
        except Exception as error:
            if scope["type"] != "http" or has_begun:
                raise
            self._service.count_error()
            request = Request(scope)
            _log.error("call_failed", exc_info=error, extra={"request_id": _id(request)})
            answer = _error(request, 500, "the endpoint failed; its log says why")
            await answer(scope, receive, send)


def _add_calls(app: FastAPI, service: Service) -> None:
    @app.post("/v1/classify", response_model=ClassifyAnswer, responses=_ERRORS, tags=["model"])
    async def classify(asked: ClassifyRequest) -> Response:
        """Decide on one or many texts."""
        # An explanation is told in full; without one a result has no such key.
        return _json(await service.classify(asked), exclude_unset=not asked.explain)

    @app.post("/v1/feedback", response_model=FeedbackAnswer, responses=_ERRORS, tags=["people"])
    async def feedback(given: FeedbackRequest) -> Response:
        """Give texts the labels that people gave them: for the ledger, and the next training."""
        return _json(await service.feedback(given.answers))

    @app.get("/v1/queue", response_model=Queue, responses=_ERRORS, tags=["people"])
    async def queue(limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> Response:
        """The texts that a person should look at, newest first."""
        return _json(await service.queue(limit))

    @app.get("/v1/model", response_model=ModelInfo, responses=_ERRORS, tags=["model"])
    def model() -> Response:
        """The model that answers: labels, thresholds, scorecard, limits, versions."""
        return _json(service.about())

    @app.get("/v1/stats", response_model=Stats, responses=_ERRORS, tags=["operation"])
    async def stats() -> Response:
        """Live rates of all replicas."""
        return _json(await service.stats())

    @app.get("/healthz", tags=["operation"])
    async def healthz() -> dict[str, str]:
        """Whether the process is alive."""
        return {"status": "alive"}

    @app.get("/readyz", tags=["operation"], responses={503: {"model": ErrorAnswer}})
    async def readyz() -> dict[str, str]:
        """Whether a model is there to answer."""
        if not service.is_ready:
            raise HTTPException(503, "no model is loaded yet", {"Retry-After": "1"})
        return {"status": "ready", "bundle": service.bundle}


def _add_page(app: FastAPI) -> None:
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    # Swagger's files from a package: the machine may reach no CDN.
    app.mount("/docs/files", StaticFiles(packages=[("fastapi_offline", "static")]), name="docs")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html")


def _add_errors(app: FastAPI, service: Service) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return _error(request, 422, _not_json(request, error) or _told(error))

    @app.exception_handler(DataError)
    async def mistaken(request: Request, error: DataError) -> Response:
        return _error(request, 422, str(error))

    @app.exception_handler(OverloadedError)
    async def overloaded(request: Request, error: OverloadedError) -> Response:
        service.count_refusal()
        told = "too many texts wait already"
        return _error(request, 503, told, {"Retry-After": str(error.retry_after_s)})

    @app.exception_handler(RedRayError)
    async def failed(request: Request, error: RedRayError) -> Response:
        service.count_error()
        return _error(request, 503, str(error), {"Retry-After": "5"})

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        detail = str(error.detail)
        if error.status_code == 400 and isinstance(error.__cause__, UnicodeError):
            detail = "the body is not UTF-8: send JSON, encoded as UTF-8"
        return _error(request, error.status_code, detail, error.headers)


def _json(answer: BaseModel, *, exclude_unset: bool = False) -> Response:
    # Not FastAPI's own way, which validates and converts an answer of ours once more.
    content = answer.model_dump_json(exclude_unset=exclude_unset)
    return Response(content, media_type="application/json")


def _error(request: Request, status: int, detail: str, headers: Any = None) -> Response:
    # As ASCII: a message may quote half of a surrogate pair, which UTF-8 does not hold.
    body = json.dumps({"detail": detail, "request_id": _id(request)})
    return Response(body, status, headers, media_type="application/json")


def _id(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))


def _not_json(request: Request, error: RequestValidationError) -> str:
    """What to say of a body that is no JSON, or is not said to be; empty where it is."""
    fault = error.errors()[0]
    if fault["type"] == "json_invalid":
        return f"the body is no JSON, at character {fault['loc'][-1]}"
    kind = request.headers.get("content-type", "")
    if fault["loc"] == ("body",) and "json" not in kind.lower():
        told = f"not as {kind[:80]!r}" if kind else "which is missing"
        return f"the body must be JSON: send content-type: application/json, {told}"
    return ""


def _told(error: RequestValidationError) -> str:
    """The first faults of a body, in one line; what was given is not repeated in length."""
    faults = []
    for fault in error.errors()[:MAX_FAULTS]:
        steps = [str(step)[:80] for step in fault["loc"] if step != "body"]
        where = ".".join(steps) or "the body"
        if fault["type"] == "extra_forbidden":
            faults.append(f"{where}: unknown key{_near(steps[-1])}")
            continue
        told = f"{where}: {fault['msg'].removeprefix('Value error, ')}"
        given = fault.get("input")
        # Not a list or an object: one that is deep enough cannot be written down.
        is_short = isinstance(given, str | int | float | None) and len(repr(given)) <= 80
        is_short &= not set(steps) & OF_USERS
        faults.append(f"{told}, got {given!r}" if is_short else told)
    more = len(error.errors()) - MAX_FAULTS
    return "; ".join(faults) + (f"; and {more} more" if more > 0 else "")


def _near(key: str) -> str:
    near = difflib.get_close_matches(key, [name for name in KEYS if name != key], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
