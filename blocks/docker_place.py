"""How far a Docker engine's log was read, while each connection reads it from its start."""

from __future__ import annotations

from collections.abc import Sequence

from prefect_jobs.blocks.docker_frames import Message
from prefect_jobs.blocks.engine import Stream


class Place:
    """Tells the messages that were not seen yet.

    The engine gives its messages in one order, so that those that were seen are counted off: their times may be equal,
    or cross between the streams. Only where the log has lost its start, rotated away, do the messages go on after the
    last one that was seen, or, if that is lost too, with the first later one.

    An engine that rotates a log under a reader may jump in it and give messages twice, or none for a while. So a
    message that stands before what its stream gave already is believed only where a second connection gives it in the
    same place: then the engine's clock was set back.
    """

    def __init__(self) -> None:
        self.last: Message | None = None
        """The last message that was new."""
        self.moved = False
        """Whether this connection brought anything new."""
        self.astray = False
        """Whether this connection left the order of the log; another one has to go on."""
        self._number = self._seen = 0
        self._first: Message | None = None
        self._start: Message | None = None
        self._caught_up = True
        self._searching = False
        self._latest: dict[Stream, Message] = {}
        self._doubted: tuple[int, Message] | None = None
        self._trusting = False

    def start_over(self) -> None:
        """The log is read from its start."""
        self._number, self._caught_up = 0, self._seen == 0
        self.moved = self.astray = False

    def new(self, messages: Sequence[Message]) -> list[Message]:
        """Those of the log's next messages that were not seen yet, up to where the connection goes astray."""
        found: list[Message] = []
        for message in messages:
            self._number += 1
            if self._number == 1:
                self._start = message
                self._first = self._first or message
            if not self._caught_up and not self._is_past(message):
                if self.astray:
                    break
                continue
            if not self._trusting and self._is_astray(message):
                break
            self._latest[message[0]] = self.last = message
            found.append(message)
            self._seen, self.moved = self._number, True
        return found

    def _is_past(self, message: Message) -> bool:
        """Whether a message follows those that were seen, while a connection catches up."""
        if self._start != self._first:
            self._searching = True
        if self._searching:
            newest = max(latest.nanoseconds for latest in self._latest.values())
            if message != self.last and message.nanoseconds <= newest:
                return False
            self._caught_up, self._searching, self._first = True, False, self._start
            self._seen = self._number
            return message != self.last
        if self._number == self._seen:
            self._caught_up = message == self.last
            self._searching = self.astray = not self._caught_up
        return False

    def _is_astray(self, message: Message) -> bool:
        before = self._latest.get(message[0])
        if before is None or message[1] > before[1]:
            return False
        # Parts of one line have one time. Whole lines that are equal to the nanosecond are one that came twice.
        if message[1] == before[1] and (message != before or not message[2].endswith(b"\n")):
            return False
        self._trusting = self._doubted == (self._number, message)
        self._doubted = (self._number, message)
        self.astray = not self._trusting
        return self.astray
