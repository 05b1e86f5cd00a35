"""Work that may hang, in a thread that nobody else waits for."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class InThread(Protocol):
    """Carries out work that blocks, beside the event loop: `in_own_thread`, or a test's that takes no real time."""

    async def __call__(self, work: Callable[[], T]) -> T: ...


async def in_own_thread(work: Callable[[], T]) -> T:
    """Like `asyncio.to_thread`, in a thread of its own: one that hangs keeps no other from working.

    A caller that is cancelled goes on at once; what the thread still comes to is lost. It is a daemon, so that it does
    not keep the process from ending either.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(settle: Callable[[Any], None], outcome: object) -> None:
        # The loop may have ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if future.done() else settle(outcome))

    def carry_out() -> None:
        try:
            result = work()
        except Exception as failure:
            tell(future.set_exception, failure)
        else:
            tell(future.set_result, result)

    threading.Thread(target=carry_out, daemon=True).start()
    return await future
