"""A TCP proxy on loopback that counts bytes and can be slow: what a process really sent and received."""

from __future__ import annotations

import asyncio
import contextlib
import threading

_PIECE = 16 * 1024


class CountingProxy:
    """Forwards a loopback port to another and counts the payload of both directions.

    Args:
        target_port: where connections go on.
        rate: bytes per second downward (to the client), for all connections together; None does not hold anything back.
    """

    def __init__(self, target_port: int, rate: float | None = None) -> None:
        self.up_bytes = 0
        self.down_bytes = 0
        self._target_port, self._rate = target_port, rate
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    @property
    def url(self) -> str:
        """The address to give to an MQTT client."""
        return f"mqtt://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Cut everything."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._end(server))
        self._loop.close()

    @staticmethod
    async def _end(server: asyncio.Server) -> None:
        server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close in the loop's next turn

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer.transport), contextlib.suppress(OSError):
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            tasks = [
                asyncio.ensure_future(self._copy(reader, there_writer, up=True)),
                asyncio.ensure_future(self._copy(there_reader, writer, up=False)),
            ]
            with contextlib.closing(there_writer.transport):
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in tasks:
                        task.cancel()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE):
                if up:
                    self.up_bytes += len(piece)
                else:
                    self.down_bytes += len(piece)
                    if self._rate:
                        await asyncio.sleep(len(piece) / self._rate)
                writer.write(piece)
                await writer.drain()
