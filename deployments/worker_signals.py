"""Being told to end: by a signal once, and once more."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def told(act: Callable[[asyncio.Task[Any]], None]) -> Iterator[None]:
    """Act when this process is told to end; Prefect's command line would kill it when it is told a second time."""
    main, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert main is not None
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            loop.add_signal_handler(number, act, main)
    except (RuntimeError, ValueError):  # Not in the main thread: whoever runs it there tells it otherwise.
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
