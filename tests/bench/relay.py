"""A TCP relay in front of a mirror: adds the network's delay, and can turn into a black hole."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Self

from tests.conftest import free_port

_CHUNK = 1 << 16


class Relay:
    """Passes connections on to ``target_port`` of loopback from a port of its own.

    ``delay_seconds`` is a round trip: it is paid for connecting, and for whatever the client sends.
    """

    def __init__(self, target_port: int, *, delay_seconds: float = 0.0) -> None:
        self.port = free_port()
        self._target = target_port
        self._delay = delay_seconds
        self._dark = False
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def go_dark(self, *, dark: bool = True) -> None:
        """Accept connections and say nothing, on those that are open too; or serve again."""
        self._dark = dark

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, backlog=512)
        self._ready.set()
        async with server:
            await self._stopped.wait()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            await asyncio.sleep(self._delay)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            with contextlib.closing(far_writer):
                await asyncio.gather(
                    self._pump(reader, far_writer, self._delay),
                    self._pump(far_reader, writer, 0.0),
                )

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float
    ) -> None:
        while data := await reader.read(_CHUNK):
            if self._dark:
                # What comes now is lost, as in a network that drops packets.
                continue
            if delay:
                await asyncio.sleep(delay)
            writer.write(data)
            await writer.drain()
        writer.close()
