"""An `AsyncClient` with calls that wait, on an event loop in a thread of its own: one suite tests both kinds."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self

from whimbrel_client import AsyncClient, AsyncWriter


class OnALoop:
    """What a coroutine would give is given at once, what an async iterator gives comes from an iterator."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        try:
            self._client = self._run(_made(*arguments, **more))
        except BaseException:
            self._end()
            raise

    def _run(self, what: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await what

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._run(self._client.close())
        self._end()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        found = getattr(self._client, name)

        def called(*arguments: Any, **more: Any) -> Any:
            given = found(*arguments, **more)
            if inspect.isawaitable(given):
                return self._run(given)
            if isinstance(given, AsyncWriter):
                return _Writer(given, self._run)
            return self._each(given)

        return called

    def _each(self, given: Any) -> Iterator[Any]:
        try:
            while True:
                try:
                    item = self._run(anext(given))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self._run(given.aclose())


async def _made(*arguments: Any, **more: Any) -> AsyncClient:
    return AsyncClient(*arguments, **more)


class _Writer:
    """The same for a writer. It begins when it is made, as one that waits does."""

    def __init__(self, writer: AsyncWriter, run: Callable[[Awaitable[Any]], Any]) -> None:
        self._writer = writer
        self._run = run
        run(writer.__aenter__())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._run(self._writer.__aexit__(*error))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._writer, name)
        return (lambda *given, **more: self._run(found(*given, **more))) if callable(found) else found
