"""A server that sends whatever bytes a test likes, at whatever pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def sending(*parts: bytes, wait: float = 0.0, forever: bool = False) -> AsyncIterator[str]:
    """Its `host:port`. It reads a little, sends these bytes `wait` seconds apart, once or for ever, and closes."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await reader.read(1024)
            while True:
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(wait)
                if not forever:
                    break
        except OSError:
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
