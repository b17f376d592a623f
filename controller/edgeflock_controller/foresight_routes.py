"""The API's routes from which a rollout is planned and rehearsed; they change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgeflock_controller.choosing import AUTO, Wish
from edgeflock_controller.core import Core
from edgeflock_controller.foresight import Foresight


class ProspectBody(BaseModel):
    """What `POST /v1/prospects` takes: a deployment without its policy, which whoever plans knows.

    `objective`, `require` and `boards` speak of the variant per class (`auto`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: int | None = None
    variant: str
    selector: str
    objective: str = ""
    require: str = ""
    boards: int = Field(2, ge=1, le=100)
    runs: int = Field(3, ge=1, le=10)


class RecordsBody(BaseModel):
    """What `POST /v1/records` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    devices: tuple[str, ...]


def foresight_routes(core: Core, foresight: Foresight) -> list[Route]:
    """The routes."""

    async def answered(work: Callable[[], Any]) -> Response:
        return JSONResponse(await asyncio.wrap_future(core.call(work)))

    async def prospect(request: Request) -> Response:
        b = ProspectBody.model_validate_json(await request.body())
        if b.variant != AUTO:
            return await answered(lambda: foresight.prospect(b.model, b.version, b.variant, b.selector))
        wish = Wish(b.model, b.version, b.selector, None, b.objective, b.require, b.boards, b.runs, by="")
        return await answered(lambda: foresight.prospect_per_class(wish))

    async def records(request: Request) -> Response:
        b = RecordsBody.model_validate_json(await request.body())
        return await answered(lambda: foresight.records(b.model, b.devices))

    return [Route("/v1/prospects", prospect, methods=["POST"]), Route("/v1/records", records, methods=["POST"])]
