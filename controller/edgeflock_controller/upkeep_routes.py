"""The API's routes of tags, freezes and the audit log, and how a refused command comes into that log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgeflock_controller.audit import Act
from edgeflock_controller.core import Core
from edgeflock_controller.freezes import FreezeKind
from edgeflock_controller.upkeep import Upkeep
from edgeflock_deploy.errors import BadInput

T = TypeVar("T")
_MOST_ENTRIES = 10_000


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    by: str


class TagBody(_Body):
    """What `POST /v1/tags` takes."""

    selector: str
    tags: dict[str, str] = {}
    remove: tuple[str, ...] = ()


class FreezeBody(_Body):
    """What `PUT` and `DELETE /v1/freezes/{kind}/{name}` take; an unfreezing needs no reason."""

    reason: str = ""


class Acting:
    """Runs commands that change something. A command enters its success into the log itself, this its refusal."""

    def __init__(self, core: Core, upkeep: Upkeep) -> None:
        self._core, self._upkeep = core, upkeep

    async def __call__(self, what: Act, work: Callable[[], Any]) -> Response:
        """Have the core do the work; its answer as JSON."""

        async def call() -> Response:
            return JSONResponse(await asyncio.wrap_future(self._core.call(work)))

        return await self.entered(what, call())

    async def entered(self, what: Act, work: Awaitable[T]) -> T:
        """What the work gives; if it is refused, that is in the log before the caller hears it."""
        try:
            return await work
        except BadInput as error:
            refusal = error
            await asyncio.wrap_future(self._core.call(lambda: self._upkeep.refused(what, refusal)))
            raise


def upkeep_routes(core: Core, upkeep: Upkeep, act: Acting) -> list[Route]:
    """The routes."""

    async def tag(request: Request) -> Response:
        body = TagBody.model_validate_json(await request.body())
        what = Act(body.by, "tag", f"to {body.selector}", {})
        return await act(what, lambda: upkeep.tag(body.selector, body.tags, body.remove, body.by))

    async def freeze(request: Request) -> Response:
        body = FreezeBody.model_validate_json(await request.body())
        kind, name = _kind(request.path_params["kind"]), request.path_params["name"]
        if request.method == "PUT":
            what = Act(body.by, "freeze", f"{kind} {name}", {kind: [name]})
            return await act(what, lambda: upkeep.freeze(kind, name, body.reason, body.by))
        what = Act(body.by, "unfreeze", f"{kind} {name}", {kind: [name]})
        return await act(what, lambda: upkeep.unfreeze(kind, name, body.by))

    async def freezes(_request: Request) -> Response:
        return JSONResponse(await asyncio.wrap_future(core.call(upkeep.freezes)))

    async def audit(request: Request) -> Response:
        asked = request.query_params
        limit = asked.get("limit", "50")
        if not limit.isdigit() or not 1 <= int(limit) <= _MOST_ENTRIES:
            raise BadInput("limit", "is no number of entries", f"give 1 to {_MOST_ENTRIES}")
        about = asked.get("rollout"), asked.get("device"), asked.get("model")
        return JSONResponse(await asyncio.wrap_future(core.call(lambda: upkeep.audit(int(limit), *about))))

    return [
        Route("/v1/tags", tag, methods=["POST"]),
        Route("/v1/freezes", freezes),
        Route("/v1/freezes/{kind}/{name}", freeze, methods=["PUT", "DELETE"]),
        Route("/v1/audit", audit),
    ]


def _kind(word: str) -> FreezeKind:
    kinds: dict[str, FreezeKind] = {"device": "device", "model": "model"}
    if word not in kinds:
        raise BadInput(word, "cannot be frozen", f"freeze a {' or a '.join(kinds)}")
    return kinds[word]
