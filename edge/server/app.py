"""The ASGI application: routes over a service, and the layers every request passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge.errors import EdgeError
from edge.server import generate, info
from edge.server.access import Access, log_failure, record_of
from edge.server.answers import EngineLike
from edge.server.door import Door
from edge.server.errors import ApiError, Fault, fault_of
from edge.server.openapi import describe, request_of
from edge.server.options import DeviceReading, ServerOptions
from edge.server.service import Service
from edge.server.wire import ChatBody, CompletionBody, DetokenizeBody, TokenizeBody


def create_app(
    engine: EngineLike | None,
    options: ServerOptions | None = None,
    *,
    device: Callable[[], DeviceReading] = DeviceReading,
) -> FastAPI:
    """An application that answers with `engine`.

    engine: None while it is being loaded; `app.state.service.install(engine)` hands it in later. Closing it is the
        caller's matter. device: read for `/health` and `/metrics`, at most every two seconds.
    """
    options = options or ServerOptions()
    service = Service(options, engine=engine, device=device)
    # No pages of documentation: they fetch their scripts from the net, and a device may have none.
    app = FastAPI(title="smoltools-edge", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.service = service
    _add_routes(app, service)
    _add_error_handlers(app)
    app.openapi = describe(app)  # type: ignore[method-assign]
    app.add_middleware(Door, options=options)
    if options.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    app.add_middleware(Access, metrics=service.metrics)  # the last one added is the outermost
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", openapi_extra=request_of(ChatBody), response_model=None)
    async def chat_completions(request: Request) -> Response:
        """The next message of a conversation, with tools that the model may call."""
        return await generate.chat_completions(service, request)

    @app.post("/v1/completions", openapi_extra=request_of(CompletionBody), response_model=None)
    async def completions(request: Request) -> Response:
        """The continuation of a text."""
        return await generate.completions(service, request)

    @app.get("/v1/models", response_model=None)
    async def models() -> Response:
        """The model that is served."""
        return await info.models(service)

    @app.get("/v1/models/{model_id:path}", response_model=None)
    async def model(model_id: str) -> Response:
        """One model."""
        return await info.model(service, model_id)

    @app.post("/v1/tokenize", openapi_extra=request_of(TokenizeBody), response_model=None)
    async def tokenize(request: Request) -> Response:
        """Token ids of a text."""
        return await info.tokenize(service, request)

    @app.post("/v1/detokenize", openapi_extra=request_of(DetokenizeBody), response_model=None)
    async def detokenize(request: Request) -> Response:
        """The text of token ids."""
        return await info.detokenize(service, request)

    @app.get("/metrics", response_model=None)
    async def metrics() -> Response:
        """Counters and histograms for Prometheus."""
        return await info.metrics(service)

    @app.get("/v1/health", include_in_schema=False, response_model=None)
    @app.get("/health", response_model=None)
    async def health() -> Response:
        """Whether requests are answered; needs no key."""
        return await info.health(service)


def _add_error_handlers(app: FastAPI) -> None:
    def answer(fault: Fault) -> JSONResponse:
        return JSONResponse(fault.body(), fault.status, headers=dict(fault.headers))

    async def api_error(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, ApiError)
        return answer(exc.fault)

    async def edge_error(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, EdgeError)
        fault = fault_of(exc)
        if fault.status == 500:  # the others are no defects
            log_failure(exc, record_of(request.scope).request_id)
        return answer(fault)

    async def http_error(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        message = "there is no such address" if exc.status_code == 404 else str(exc.detail)
        return answer(Fault(exc.status_code, message, code="not_found" if exc.status_code == 404 else None,
                            headers=exc.headers or {}))  # fmt: skip

    handlers: tuple[tuple[type[Exception], Callable[[Request, Exception], Awaitable[Response]]], ...] = (
        (ApiError, api_error),
        (EdgeError, edge_error),
        (HTTPException, http_error),
    )
    for kind, handler in handlers:
        app.add_exception_handler(kind, handler)
