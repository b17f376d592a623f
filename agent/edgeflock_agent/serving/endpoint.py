"""How applications on the board get inferences: the Open Inference Protocol v2, on loopback and on a Unix socket.

Decided here: where it is listened. What is answered stands in `answers`, who answers in `turns`.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from edgeflock_agent.serving import listening
from edgeflock_agent.serving.answers import Answers
from edgeflock_agent.serving.http_server import HttpServer
from edgeflock_agent.serving.turns import (
    Answered,
    ExpectedNow,
    MayLend,
    RawInputs,
    Refused,
    Serving,
    ServingNow,
    Turn,
    Turns,
    Witness,
    end_turn,
)

__all__ = ["Answered", "Endpoint", "RawInputs", "Serving", "Turn", "Witness", "end_turn"]


def _nobody(_answered: Answered) -> None:
    """Nobody looks at what applications ask."""


def _unheard(_model: str, _serving: Serving) -> None:
    """Nobody counts what the runtime refuses."""


def _never(_model: str, _serving: Serving) -> bool:
    """Every request is answered here."""
    return False


def _no_turn(_model: str) -> None:
    """No trial has a say."""


class Endpoint:
    """The server and its threads; make it with `start`, and stop it. `url` is its loopback address."""

    def __init__(self, server: HttpServer, url: str, socket_path: Path | None) -> None:
        self._server, self.url, self.socket_path = server, url, socket_path

    @classmethod
    def start(
        cls,
        serving: ServingNow,
        expected: ExpectedNow = tuple,
        *,
        witness: Witness = _nobody,
        refused: Refused = _unheard,
        turns: Turns = _no_turn,
        may_lend: MayLend = _never,
        host: str = "127.0.0.1",
        port: int = 0,
        socket_path: Path | None = None,
    ) -> Endpoint:
        """Listen and serve.

        Args:
            serving: which variant serves a model now, or None; called from many threads.
            expected: the models that should be served; the endpoint is ready when all of them are.
            witness: is told of each answer before it is sent, on the request's own thread: it must be quick.
            refused: is told where the runtime refused a request, in the same way.
            turns: which trial has a say in a model's requests, or None; called from many threads.
            may_lend: whether the child that serves a model may answer its applications by itself for a while, of which
                the witness hears nothing; called from many threads, and once a second while it does.
            host: a loopback address.
            port: 0 takes a free one; the real one is in `url`.
            socket_path: where to listen on a Unix socket too.

        Raises:
            BadInput: the address is not a loopback address, or it or the socket cannot be listened on.
        """
        at_port, url = listening.tcp(host, port)
        sockets: list[socket.socket] = [at_port]
        if socket_path is not None:
            try:
                sockets.append(listening.unix(socket_path))
            except BaseException:
                at_port.close()
                raise
        return cls(HttpServer(sockets, Answers(serving, expected, witness, refused, turns, may_lend)), url, socket_path)

    def stop(self) -> None:
        """Stop listening, and remove the Unix socket."""
        self._server.stop()
        if self.socket_path is not None:
            with contextlib.suppress(OSError):
                self.socket_path.unlink()
