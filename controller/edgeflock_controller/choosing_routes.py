"""The API's routes of the variant per class: begin one, see how far its measuring is, look at a front."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgeflock_controller.audit import Act
from edgeflock_controller.choosing import AUTO, Choosing, Wish
from edgeflock_controller.core import Core
from edgeflock_controller.upkeep_routes import Acting
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.policy.rules import Policy


class ChoosingBody(BaseModel):
    """What `POST /v1/campaigns` takes; `version` None is the newest. Without objective and policy it only measures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: int | None = None
    selector: str
    policy: Policy | None = None
    objective: str = ""
    require: str = ""
    boards: int = Field(2, ge=1, le=100)
    runs: int = Field(3, ge=1, le=10)
    by: str
    start_at: float | None = None


def choosing_routes(core: Core, choosing: Choosing, act: Acting) -> list[Route]:
    """The routes."""

    async def answered(work: Callable[[], Any]) -> Response:
        return JSONResponse(await asyncio.wrap_future(core.call(work)))

    async def begin(request: Request) -> Response:
        body = ChoosingBody.model_validate_json(await request.body())
        wish = Wish(**{name: getattr(body, name) for name in Wish._fields})
        if (body.policy is None) != (not body.objective):
            raise BadInput("campaign", "has one of policy and objective", "give both, or none to measure only")
        wanted = f"{body.model} {AUTO}, {body.objective}, {body.require or 'no requirement'}, to {body.selector}"
        what = ("deploy", wanted) if body.objective else ("measure", f"{body.model} on {body.selector}")
        return await act(Act(body.by, *what, {"model": [body.model]}), lambda: choosing.deploy(wish))

    async def campaign(request: Request) -> Response:
        return await answered(lambda: choosing.campaign(request.path_params["name"]))

    async def front(request: Request) -> Response:
        version, device_class = request.query_params.get("version"), request.query_params.get("class")
        if version is not None and not version.isdigit():
            raise BadInput(f"version {version!r}", "is no number", "use a client of this release")
        number = None if version is None else int(version)
        return await answered(lambda: choosing.front(request.path_params["model"], number, device_class))

    return [
        Route("/v1/campaigns", begin, methods=["POST"]),
        Route("/v1/campaigns/{name}", campaign),
        Route("/v1/fronts/{model}", front),
    ]
