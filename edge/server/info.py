"""What the server tells of itself and its model: models, health, metrics, tokens."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge.server.body import Body, read_body
from edge.server.errors import ApiError, Fault
from edge.server.service import Service
from edge.server.wire import DetokenizeBody, TokenizeBody


async def models(service: Service) -> Response:
    """The one model."""
    return JSONResponse({"object": "list", "data": [_model(service)]})


async def model(service: Service, model_id: str) -> Response:
    """A model by its id; 404 for any other."""
    if model_id != service.options.model_id:
        message = f"the model {model_id[:100]!r} is not served here; {service.options.model_id!r} is"
        raise ApiError(Fault(404, message, code="model_not_found", param="model"))
    return JSONResponse(_model(service))


_TOLD = ("architecture", "quantization", "size_bytes", "n_ctx_train")  # and not the file's path


def _model(service: Service) -> Mapping[str, object]:
    engine = service.engine
    facts = engine.facts
    meta = {name: facts[name] for name in _TOLD if name in facts} | {"n_ctx": engine.n_ctx}
    return {
        "id": service.options.model_id,
        "object": "model",
        "created": service.started_at,
        "owned_by": "smoltools-edge",
        "meta": meta,
    }


async def _read(service: Service, request: Request, model: type[Body]) -> Body:
    with service.bodies.holding() as hold:
        return await read_body(request, model, hold, service.options.read_timeout_s)


async def tokenize(service: Service, request: Request) -> Response:
    """Token ids of a text."""
    body = await _read(service, request, TokenizeBody)
    tokens = await service.in_thread(lambda: service.engine.tokenize(body.content, add_bos=body.add_special))
    return JSONResponse({"tokens": tokens, "count": len(tokens), "n_ctx": service.engine.n_ctx})


async def detokenize(service: Service, request: Request) -> Response:
    """The text of token ids."""
    body = await _read(service, request, DetokenizeBody)
    text = await service.in_thread(lambda: service.engine.detokenize(body.tokens))
    return JSONResponse({"content": text})


_TOLD_OF_DEVICE = (
    "temperature_c", "throttled", "power_w", "power_mode", "memory_available_bytes", "memory_pressure_percent",
    "disk_wear_percent",
)  # fmt: skip


async def health(service: Service) -> Response:
    """200 while requests are answered, 503 before and after; what makes it slower or may soon end it, in words."""
    if service.is_closing or service.is_loading:
        status = "closing" if service.is_closing else "loading"
        fault = Fault(
            503, f"the server is {status}", "unavailable_error", status, headers={"Retry-After": "2"}
        )
        return JSONResponse({"status": status} | fault.body(), 503, headers=dict(fault.headers))
    reading = await service.in_thread(service.device)
    stats = service.stats()
    assert stats is not None
    told = {
        "status": "degraded" if reading.troubles else "ok",
        "troubles": list(reading.troubles),
        "running": stats.running,
        "queued": stats.queued,
        "sequences_free": stats.n_sequences_free,
        **{name: getattr(reading, name) for name in _TOLD_OF_DEVICE},
    }
    return JSONResponse(told)


async def metrics(service: Service) -> Response:
    """Prometheus' text format."""
    text = await service.in_thread(service.metrics.expose)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
