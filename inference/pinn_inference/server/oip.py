"""The Open Inference Protocol, version 2, over REST, with binary tensors: for clients that know no other server.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md. Two models are
served, `european` and `american`: what tensors they take and give is in their metadata. Error bodies are the server's
own; the protocol asks for the field `error` alone.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import orjson
from aiohttp import web

from pinn_inference.pricing.types import OptionBatch, Quotes
from pinn_inference.server.bodies import BodyReader
from pinn_inference.server.errors import Fault, InvalidRequest, ServerError
from pinn_inference.server.inflate import Coding
from pinn_inference.server.middleware import BODY
from pinn_inference.server.oip_codec import (
    AMERICAN_OUTPUTS,
    HEADER_LENGTH,
    INPUTS,
    MODELS,
    OUTPUTS,
    InferAnswer,
    InferTarget,
    TensorFault,
    parse_infer_request,
    render_infer_answer,
)
from pinn_inference.server.oip_statistics import ModelStatistics, model_config
from pinn_inference.server.parsing import FIELDS
from pinn_inference.server.timing import SERVER_TIMING, TIMING, Timing

INFER_PATHS: Final = ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")
EXTENSIONS: Final = ("binary_tensor_data", "model_configuration", "statistics")
PLATFORM: Final = "pinn_npz"
"""Framework and file format of the models, in the form `<framework>_<format>` that the protocol asks for."""
INLINE_BYTES: Final = 16 * 1024
"""Bodies up to about this size (300 binary rows) are parsed, priced and answered on the event loop."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """What is known of one of the models: `version` is None while none is in use, `message` says why."""

    ready: bool
    version: str | None
    message: str


class UnknownModel(ServerError):
    """The path names a model or a version that is not served."""

    status = 404


PriceFunction = Callable[[OptionBatch], Awaitable[Quotes]]
LargeFunction = Callable[[web.Request, AsyncIterator[bytes], Coding, InferTarget], Awaitable[web.StreamResponse]]
"""Prices and answers an infer request with a large body, which comes piece by piece, compressed as the coding says."""


class OpenInferencePages:
    """The handlers under /v2.

    `price` prices small batches, `large` takes over what is larger. `state_of` knows the models by their names;
    `server_ready` says why the server is not ready, None if it is.
    """

    def __init__(
        self,
        *,
        price: PriceFunction,
        large: LargeFunction,
        state_of: Callable[[str], ModelState],
        server_ready: Callable[[], str | None],
        max_body_bytes: int,
        max_batch: int,
    ) -> None:
        self._price = price
        self._large = large
        self._state_of = state_of
        self._server_ready = server_ready
        self._max_body_bytes = max_body_bytes
        self._max_batch = max_batch
        self._statistics = {name: ModelStatistics() for name in MODELS}

    def routes(self) -> list[web.RouteDef]:
        model, one_version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
        return [
            web.get("/v2", self.server),
            web.get("/v2/", self.server),
            web.get("/v2/health/live", self.live),
            web.get("/v2/health/ready", self.ready),
            web.get("/v2/models/stats", self.all_statistics),
            *(web.get(path, self.model) for path in (model, one_version)),
            *(web.get(f"{path}/ready", self.model_ready) for path in (model, one_version)),
            *(web.get(f"{path}/config", self.config) for path in (model, one_version)),
            *(web.get(f"{path}/stats", self.statistics) for path in (model, one_version)),
            *(web.post(path, self.infer) for path in INFER_PATHS),
        ]

    async def server(self, request: web.Request) -> web.Response:  # noqa: ARG002
        document = {"name": "pinn-inference", "version": version("pinn-operator"), "extensions": EXTENSIONS}
        return _json(document)

    async def live(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return _json({"live": True})

    async def ready(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """Under both names: the specification's text calls the field of this answer `live`, as that of the other."""
        reason = self._server_ready()
        if reason is not None:
            return _json({"live": False, "ready": False, "error": reason}, status=503)
        return _json({"live": True, "ready": True})

    async def model(self, request: web.Request) -> web.Response:
        target = self._target(request)
        versions = [] if target.version is None else [target.version]
        return _json({"name": target.model, "versions": versions, "platform": PLATFORM, **_tensors(target)})

    async def config(self, request: web.Request) -> web.Response:
        target = self._target(request)
        optional = [field.name for field in FIELDS if field.default is not None] + ["option_type"]
        return _json(model_config(name=target.model, platform=PLATFORM, optional=optional, **_tensors(target)))

    async def statistics(self, request: web.Request) -> web.Response:
        target = self._target(request)
        return self._told_statistics([target.model])

    async def all_statistics(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return self._told_statistics(MODELS)

    def _told_statistics(self, models: Sequence[str]) -> web.Response:
        told = [self._statistics[it].document(name=it, version=self._state_of(it).version) for it in models]
        return _json({"model_stats": told})

    async def model_ready(self, request: web.Request) -> web.Response:
        target = self._target(request)
        state = self._state_of(target.model)
        if not state.ready:
            return _json({"name": target.model, "ready": False, "error": state.message}, status=503)
        return _json({"name": target.model, "ready": True})

    async def infer(self, request: web.Request) -> web.StreamResponse:
        """Answered as POST /v1/price is: in closed form, and saying so, where no model can be used."""
        target, began = self._target(request), time.perf_counter()
        statistics = self._statistics[target.model]
        try:
            response = await self._infer(request, target)
        except ServerError:
            statistics.failed(time.perf_counter() - began)
            raise
        statistics.succeeded(time.perf_counter() - began, request[TIMING])
        return response

    async def _infer(self, request: web.Request, target: InferTarget) -> web.StreamResponse:
        body = BodyReader(request, limit=self._max_body_bytes)
        start, is_whole = await body.start(INLINE_BYTES)
        if not is_whole:
            return await self._large(request, body.rest(start), body.coding, target)
        request[BODY] = start
        began = time.perf_counter()
        parsed = parse_infer_request(start, target=target, max_batch=self._max_batch)
        parsed_at = time.perf_counter()
        quotes = await self._price(parsed.options)
        priced_at = time.perf_counter()
        in_use = self._state_of(target.model).version
        response = infer_response(render_infer_answer(parsed, quotes, target=target, version=in_use))
        spent = parsed_at - began, priced_at - parsed_at, time.perf_counter() - priced_at
        request[TIMING] = timing = Timing(len(quotes), *spent)
        response.headers[SERVER_TIMING] = timing.header
        return response

    def _target(self, request: web.Request) -> InferTarget:
        """Raises UnknownModel, and InvalidRequest for a length header that stands twice."""
        model, named = request.match_info["model"], request.match_info.get("version")
        if model not in MODELS:
            raise UnknownModel(f'model is "{_short(model)}": must be {" or ".join(MODELS)}')
        in_use = self._state_of(model).version
        if named is not None and named != in_use:
            right = f'must be "{in_use}", or left out' if in_use is not None else "no version is in use, leave it out"
            raise UnknownModel(f'version of model {model} is "{_short(named)}": {right}')
        lengths = request.headers.getall(HEADER_LENGTH, [])
        if len(lengths) > 1:
            fault: Fault = TensorFault(HEADER_LENGTH, "must be given once", value=f"{len(lengths)} times")
            raise InvalidRequest([fault])
        return InferTarget(model, in_use, lengths[0] if lengths else None)


def _tensors(target: InferTarget) -> dict[str, list[dict[str, Any]]]:
    """The inputs and outputs of a model, as its metadata have them."""
    outputs = AMERICAN_OUTPUTS if target.american else OUTPUTS
    words = ("option_type", "method")
    return {
        kind: [{"name": name, "datatype": "BYTES" if name in words else "FP64", "shape": [-1]} for name in names]
        for kind, names in (("inputs", INPUTS), ("outputs", outputs))
    }


def infer_response(answer: InferAnswer) -> web.Response:
    """The HTTP answer with all its bytes."""
    headers = {} if answer.header_length is None else {HEADER_LENGTH: str(answer.header_length)}
    return web.Response(body=answer.join(), content_type=answer.content_type, headers=headers)


def _short(text: str) -> str:
    return text if len(text) <= 64 else text[:64] + "…"


def _json(document: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json")
