"""How applications on the board get inferences: the Open Inference Protocol v2 over HTTP and JSON, on loopback.

Decided here: what a request may ask and how a switch of variants is hidden from it. The endpoint asks `serving` which
child serves a model *for each request*; one that meets a child closed by a switch asks once more, so that a switch
drops no request. It knows no slots, no trials and no rollouts. Every response names the digest of the variant
that gave it.

Paths: GET /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME, /v2/models/NAME/ready; POST /v2/models/NAME/infer.
Errors are `{"error": …}`: 400 for a request that cannot be run, 404 for a path or model that is not there, 503 while no
variant can answer, 500 for an answer that is no number.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
import threading
from collections.abc import Callable, Collection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from edgeflock_agent import tensor_json
from edgeflock_agent.runner import Closed, HardStop, Inference, InferenceFailed, ModelProcess
from edgeflock_deploy.errors import BadInput

BODY_MAX_BYTES = 64 << 20
_IDLE_S = 30.0  # a connection that says nothing is closed
_MODEL = re.compile(r"/v2/models/([A-Za-z0-9._-]{1,64})(/ready|/infer)?")


class Serving(NamedTuple):
    """The variant that serves a model: its bundle's digest and its child."""

    digest: str
    process: ModelProcess


ServingNow = Callable[[str], Serving | None]
ExpectedNow = Callable[[], Collection[str]]


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Endpoint:
    """The HTTP server and its threads; make it with `start`, and stop it."""

    def __init__(self, server: ThreadingHTTPServer, url: str) -> None:
        self._server, self.url = server, url
        self._thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="endpoint", daemon=True)
        self._thread.start()

    @classmethod
    def start(
        cls, serving: ServingNow, expected: ExpectedNow = tuple, *, host: str = "127.0.0.1", port: int = 0
    ) -> Endpoint:
        """Listen and serve.

        Args:
            serving: which variant serves a model now, or None; called from many threads.
            expected: the models that should be served; the endpoint is ready when all of them are.
            host: a loopback address.
            port: 0 takes a free one; the real one is in `url`.

        Raises:
            BadInput: the address is not a loopback address, or cannot be listened on.
        """
        thing = f"HTTP address {host}:{port}"
        if not _is_loopback(host):
            raise BadInput(
                thing, "is not a loopback address", "use 127.0.0.1 or [::1]: the endpoint asks for no password"
            )
        try:
            server = _server_class(host)((host, port), _handler(serving, expected))
        except (OSError, OverflowError) as error:
            raise BadInput(
                thing, f"cannot be listened on ({error})", "choose another port, or 0 for a free one"
            ) from None
        shown = f"[{host}]" if ":" in host else host
        return cls(server, f"http://{shown}:{server.server_address[1]}")

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _server_class(host: str) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False  # an idle keep-alive connection does not hold up the end
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    return Server


def _handler(serving: ServingNow, expected: ExpectedNow) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "edgeflock-agent"
        sys_version = ""
        timeout = _IDLE_S
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(lambda: _get(serving, expected, self.path))

        def do_POST(self) -> None:
            self._answer(lambda: _infer(serving, expected, self.path, self._body()))

        def _body(self) -> bytes:
            length = self.headers.get("Content-Length", "")
            if not length.isascii() or not length.isdigit() or int(length) > BODY_MAX_BYTES:
                self.close_connection = True
                raise _Refused(400, f"Content-Length must be given, and at most {BODY_MAX_BYTES}")
            return self.rfile.read(int(length))

        def _answer(self, make: Callable[[], dict[str, Any]]) -> None:
            status = 200
            try:
                body = json.dumps(make(), allow_nan=False).encode()
            except _Refused as refused:
                status, body = refused.status, json.dumps({"error": refused.text}).encode()
            except ValueError:
                status, body = 500, json.dumps({"error": "the variant's answer holds NaN or an infinity"}).encode()
            with contextlib.suppress(OSError):  # the application went away
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the standard library's
            """Say nothing: a line per inference would fill a board's disk."""

    return Handler


def _get(serving: ServingNow, expected: ExpectedNow, path: str) -> dict[str, Any]:
    if path == "/v2":
        return {"name": "edgeflock-agent", "version": "2", "extensions": []}
    if path == "/v2/health/live":
        return {"live": True}
    if path == "/v2/health/ready":
        loading = [name for name in expected() if serving(name) is None]
        if loading:  # clients of the protocol look at the status
            raise _Refused(503, f"not ready: {', '.join(loading)} is being loaded")
        return {"ready": True}
    name, verb = _model(path)
    if verb == "/infer":
        raise _Refused(404, "infer takes a POST")
    digest, process = _now(serving, expected, name)
    if verb == "/ready":
        return {"name": name, "ready": process.alive}
    return {
        "name": name,
        "versions": [digest],
        "platform": "tflite",
        "inputs": [tensor_json.describe(tensor) for tensor in process.inputs],
        "outputs": [tensor_json.describe(tensor) for tensor in process.outputs],
    }


def _infer(serving: ServingNow, expected: ExpectedNow, path: str, body: bytes) -> dict[str, Any]:
    name, verb = _model(path)
    if verb != "/infer":
        raise _Refused(404, f"{path} takes no POST")
    request = _request(body)
    now = _now(serving, expected, name)
    try:
        done = _run(now.process, request)
    except (Closed, HardStop):
        now = _now(serving, expected, name)
        try:
            done = _run(now.process, request)
        except (Closed, HardStop) as error:
            raise _Refused(503, f"model '{name}' has no variant that can answer: {error}") from None
    outputs = zip(now.process.outputs, done.outputs, strict=True)
    response = {
        "model_name": name,
        "model_version": now.digest,
        "parameters": {"digest": now.digest, "latency_ms": done.latency_ms},
        "outputs": [tensor_json.from_bytes(tensor, data) for tensor, data in outputs],
    }
    return response | ({"id": request["id"]} if isinstance(request.get("id"), str) else {})


def _request(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"the body is no JSON: {error}") from None
    if not isinstance(request, dict) or not isinstance(request.get("inputs"), list):
        raise _Refused(400, "the body must be an object with a list 'inputs'")
    return request


def _run(process: ModelProcess, request: dict[str, Any]) -> Inference:
    """Run a request on a child; several inputs are matched by name."""
    given = request["inputs"]
    by_name = {str(one.get("name")): one for one in given if isinstance(one, dict)}
    names = [tensor.name for tensor in process.inputs]
    if len(given) != len(names):
        raise _Refused(400, f"the model has {len(names)} inputs {names}, {len(given)} were given")
    try:
        if len(names) == 1:
            data = [tensor_json.to_bytes(process.inputs[0], given[0])]
        elif missing := [name for name in names if name not in by_name]:
            raise _Refused(400, f"input '{missing[0]}' is missing; the model has {names}")
        else:
            data = [tensor_json.to_bytes(tensor, by_name[tensor.name]) for tensor in process.inputs]
        return process.infer(data)
    except (ValueError, InferenceFailed) as error:
        raise _Refused(400, str(error)) from None


def _model(path: str) -> tuple[str, str | None]:
    match = _MODEL.fullmatch(path)
    if match is None:
        raise _Refused(404, f"there is no {path}")
    return match[1], match[2]


def _now(serving: ServingNow, expected: ExpectedNow, name: str) -> Serving:
    now = serving(name)
    if now is None and name in expected():
        raise _Refused(503, f"the variant of model '{name}' is being loaded")
    if now is None:
        raise _Refused(404, f"no variant serves a model '{name}' here")
    return Serving(*now)
