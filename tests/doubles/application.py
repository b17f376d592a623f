"""A program on a board: it asks the agent for inferences without a rest, and keeps what it got."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from types import TracebackType

_REQUEST = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [0.1] * 8}]}).encode()


class Application:
    """A program on a board: asks for inferences without a rest while the `with` block runs, and keeps what it got.

    `story` holds the digests that answered, in their order, without repetitions.
    """

    def __init__(self, endpoint: str, model: str) -> None:
        self.story: list[str] = []
        self.failures: list[str] = []
        self.answers = 0
        self._endpoint, self._model = endpoint, model
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Application:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._ask()  # whatever happened, it has happened by now

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            self._ask()

    def _ask(self) -> None:
        try:
            digest = infer(self._endpoint, self._model)
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            return
        self.answers += 1
        if self.story[-1:] != [digest]:
            self.story.append(digest)


def infer(endpoint: str, model: str) -> str:
    """Ask once; the digest that answered."""
    with urllib.request.urlopen(f"{endpoint}/v2/models/{model}/infer", data=_REQUEST, timeout=20) as reply:
        return str(json.load(reply)["parameters"]["digest"])
