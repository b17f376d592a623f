"""The HTTP API on loopback: routes to commands, errors to JSON. Whoever has the token may do everything.

An error of the caller's is {"error": {"thing", "wrong", "mend"}} with status 400, so that the command line can raise
the same `BadInput` again.

Version history of the API: 1, the first (`/v1`).
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from edgeflock_controller.audit import Act
from edgeflock_controller.choosing_routes import choosing_routes
from edgeflock_controller.commands import SOMEBODY, Commands, Wish
from edgeflock_controller.core import Core
from edgeflock_controller.explanation import Case
from edgeflock_controller.foresight_routes import foresight_routes
from edgeflock_controller.intake import CONTAINER_LIMIT_BYTES, check_bundle, decoded_blob, take_container
from edgeflock_controller.upkeep import Upkeep
from edgeflock_controller.upkeep_routes import Acting, upkeep_routes
from edgeflock_deploy.bundle import Blob
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.keys import Trust
from edgeflock_deploy.policy.rules import Policy

Endpoint = Callable[[Request], Awaitable[Response]]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeployBody(_Body):
    """What `POST /v1/rollouts` takes; `version` None is the newest that has the variant, `start_at` None is now."""

    model: str
    version: int | None = None
    variant: str
    selector: str
    policy: Policy
    by: str
    start_at: float | None = None


class ShowQuery(_Body):
    """What `GET /v1/rollouts/{id}` takes; who looks again and again leaves the evidence out."""

    evidence: bool = True


class WhyQuery(_Body):
    """What `GET /v1/rollouts/{id}/why` takes; `at` in seconds since 1970, None: now."""

    at: float | None = None
    everything: bool = False


class RollbackBody(_Body):
    """What `POST /v1/rollbacks` takes."""

    model: str
    selector: str
    by: str


class SteerBody(_Body):
    """What `POST /v1/rollouts/{id}/{wish}` takes; `keep` speaks of an abort."""

    by: str
    keep: bool = False


class ApproveBody(_Body):
    """What `POST /v1/rollouts/{id}/approve` takes; `stage` counts from 1, None is the one that is waited for."""

    by: str
    stage: int | None = None


class _Tokened:
    """Refuses every request without the bearer token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                await _error(401, "token", "is missing or wrong", "use the one in service.json")(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _publishing(core: Core, commands: Commands, trust: Trust, act: Acting) -> list[Route]:
    """The routes by which bundles come in, and blobs go out to be the base of a delta."""

    async def put_container(request: Request) -> Response:
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > CONTAINER_LIMIT_BYTES:
                raise BadInput("container", f"is larger than {CONTAINER_LIMIT_BYTES} bytes", "publish a smaller model")
        await run_in_threadpool(take_container, core.store.containers, request.path_params["sha256"], bytes(data))
        return JSONResponse({})

    def find(sha256: str) -> Blob | None:
        return core.call(lambda: core.store.registry.blob(sha256)).result()

    async def blob(request: Request) -> Response:
        sha256 = request.path_params["sha256"]
        return Response(await run_in_threadpool(decoded_blob, sha256, core.store.containers, find))

    async def register(request: Request) -> Response:
        envelope, by = await request.body(), _by(request)
        checking = run_in_threadpool(check_bundle, envelope, trust, core.store.containers, find, core.clock())
        bundle = await act.entered(Act(by, "publish", "a bundle that was not believed", {}), checking)
        m = bundle.manifest
        what = Act(by, "publish", f"{m.model}@{m.version} {m.variant}", {"model": [m.model]})
        return await act(what, lambda: commands.register(bundle, by))

    return [
        Route("/v1/containers/{sha256}", put_container, methods=["PUT"]),
        Route("/v1/blobs/{sha256}", blob),
        Route("/v1/bundles", register, methods=["POST"]),
    ]


def _captures(core: Core, commands: Commands, act: Acting) -> list[Route]:
    """The routes by which the inputs that boards keep are asked for and fetched."""

    async def asking(request: Request) -> Response:
        device, model = request.path_params["name"], request.path_params["model"]
        if request.method == "GET":
            return JSONResponse(await asyncio.wrap_future(core.call(lambda: commands.captures(device, model))))
        what = Act(_by(request), "captures", f"inputs of {model} on {device}", {"device": [device], "model": [model]})
        return await act(what, lambda: commands.want_captures(device, model, what.by))

    async def parcel(request: Request) -> Response:
        device, model = request.path_params["name"], request.path_params["model"]

        def work() -> bytes:
            commands.captures(device, model)
            return core.store.captures.parcel(device, model)

        return Response(await asyncio.wrap_future(core.call(work)))

    path = "/v1/devices/{name}/captures/{model}"
    return [Route(path, asking, methods=["GET", "POST"]), Route(f"{path}/parcel", parcel)]


def _cases(core: Core, commands: Commands) -> list[Route]:
    """The routes by which one rollout is shown and explained: found on the core's thread, put together beside it."""

    async def case(request: Request) -> Case:
        return await asyncio.wrap_future(core.call(lambda: commands.case(request.path_params["name"])))

    async def show(request: Request) -> Response:
        asked = ShowQuery.model_validate(dict(request.query_params))
        return JSONResponse(await run_in_threadpool((await case(request)).view, asked.evidence))

    async def why(request: Request) -> Response:
        asked = WhyQuery.model_validate(dict(request.query_params))
        return JSONResponse(await run_in_threadpool((await case(request)).why, asked.at, asked.everything))

    return [Route("/v1/rollouts/{name}", show), Route("/v1/rollouts/{name}/why", why)]


def make_app(core: Core, commands: Commands, trust: Trust, token: str) -> Starlette:
    """Build the application.

    Args:
        core: runs every command on its own thread.
        commands: the commands.
        trust: which publish keys are believed.
        token: the bearer token.
    """
    upkeep = Upkeep(core, lambda name: str(commands.rollout(name)["id"]))
    act = Acting(core, upkeep)

    def ask(work: Callable[[Request], Callable[[], Any]]) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            return JSONResponse(await asyncio.wrap_future(core.call(work(request))))

        return endpoint

    async def deploy(request: Request) -> Response:
        body = DeployBody.model_validate_json(await request.body())

        def work() -> Any:
            return commands.deploy(
                body.model, body.version, body.variant, body.selector, body.policy, body.by, body.start_at
            )

        wanted = f"{body.model} {body.variant} to {body.selector}, policy {body.policy.name}"
        return await act(Act(body.by, "deploy", wanted, {"model": [body.model]}), work)

    async def rollback(request: Request) -> Response:
        body = RollbackBody.model_validate_json(await request.body())
        what = Act(body.by, "rollback", f"{body.model} on {body.selector}", {"model": [body.model]})
        return await act(what, lambda: commands.rollback(body.model, body.selector, body.by))

    async def steer(request: Request) -> Response:
        body = SteerBody.model_validate_json(await request.body())
        name, wish = request.path_params["name"], _wish(request.path_params["wish"])
        what = Act(body.by, wish, name, {"rollout": [name]})
        return await act(what, lambda: commands.steer(name, wish, body.by, keep=body.keep))

    async def approve(request: Request) -> Response:
        body = ApproveBody.model_validate_json(await request.body())
        name = request.path_params["name"]
        what = Act(body.by, "approve", name, {"rollout": [name]})
        return await act(what, lambda: commands.approve(name, body.stage, body.by))

    routes = [
        Route("/v1/status", ask(lambda _: commands.status)),
        Route("/v1/devices", ask(lambda _: commands.devices)),
        Route("/v1/devices/{name}", ask(lambda r: lambda: commands.device(r.path_params["name"]))),
        *_captures(core, commands, act),
        Route("/v1/bundles", ask(lambda _: commands.bundles), methods=["GET"]),
        Route("/v1/models/{name}/manifests", ask(lambda r: lambda: commands.manifests(r.path_params["name"]))),
        *_publishing(core, commands, trust, act),
        Route("/v1/rollouts", ask(lambda _: commands.rollouts), methods=["GET"]),
        Route("/v1/rollouts", deploy, methods=["POST"]),
        *_cases(core, commands),
        Route("/v1/rollouts/{name}/approve", approve, methods=["POST"]),
        Route("/v1/rollouts/{name}/{wish}", steer, methods=["POST"]),
        Route("/v1/rollbacks", rollback, methods=["POST"]),
        *foresight_routes(core, commands.foresight),
        *choosing_routes(core, commands.choosing, act),
        *upkeep_routes(core, upkeep, act),
        Route("/v1/dead-letters", ask(lambda _: commands.dead_letters)),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Tokened, token=token)],
        exception_handlers={BadInput: _bad_input, ValidationError: _invalid, 404: _missing, 405: _missing},
    )


def _by(request: Request) -> str:
    """Who asks, where the request has no body of ours to say it in."""
    return request.query_params.get("by") or SOMEBODY


def _wish(word: str) -> Wish:
    wishes: dict[str, Wish] = {"pause": "pause", "resume": "resume", "abort": "abort"}
    if word not in wishes:
        raise BadInput(word, "is no command of a rollout", f"use {', '.join(wishes)}")
    return wishes[word]


def _error(status: int, thing: str, wrong: str, mend: str) -> JSONResponse:
    return JSONResponse({"error": {"thing": thing, "wrong": wrong, "mend": mend}}, status_code=status)


def _bad_input(_request: Request, error: Exception) -> Response:
    assert isinstance(error, BadInput)
    return _error(400, error.thing, error.wrong, error.mend)


def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    first = error.errors()[0]
    return _error(400, ".".join(map(str, first["loc"])) or "request", first["msg"], "use a client of this release")


def _missing(request: Request, _: Exception) -> Response:
    return _error(404, request.url.path, "is no address of this API", "use a client of this release")
