"""A command on a terminal, as a person has it."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
import time
from contextlib import suppress

from reach import BIN


class Terminal:
    """A program of the environment, and what its terminal has shown."""

    def __init__(self, program: str, *words: str) -> None:
        self._process, self._terminal = pty.fork()
        if self._process == 0:
            os.execv(BIN / program, [program, *words])
        self.shown = ""
        self._looked_at = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
        os.close(self._terminal)

    def type(self, text: str) -> None:
        """Type; ``\\x03`` is Ctrl-C."""
        os.write(self._terminal, text.encode())

    async def shows(self, text: str, seconds: float = 60) -> None:
        """Wait until it shows a text, after the one that was waited for before."""
        await asyncio.to_thread(self._read_until, text, seconds)

    async def ended(self) -> int:
        """The program's exit code."""
        _, status = await asyncio.to_thread(os.waitpid, self._process, 0)
        return os.waitstatus_to_exitcode(status)

    def _read_until(self, text: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (found := self.shown.find(text, self._looked_at)) < 0:
            ready, _, _ = select.select([self._terminal], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} was not shown:\n{self.shown}"
            try:
                self.shown += os.read(self._terminal, 4096).decode(errors="replace")
            except OSError:
                raise AssertionError(f"the program ended without {text!r}:\n{self.shown}") from None
        self._looked_at = found + len(text)
