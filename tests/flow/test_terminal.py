"""What programs write for a terminal: in Prefect it reads as it would there, and everywhere else it is as it was."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from ran import Ran

from prefect_jobs.blocks.engine import Container, LogLine
from prefect_jobs.flows.console import Console, Room
from prefect_jobs.flows.log import RunLog
from prefect_jobs.flows.mask import Mask
from prefect_jobs.flows.terminal import shown
from prefect_jobs.job import Logging

GREEN, PLAIN = "\x1b[32m", "\x1b[0m"


async def test_a_progress_bar_is_its_last_step_and_the_message_has_it_as_it_was(
    sh: Callable[..., Awaitable[Ran]],
) -> None:
    script = r"seq 10000 | tr '\n' '\r'; echo; printf '1%%\r2%%\r\n\033[32mgreen\033[0m\033[K\nwindows\r\n'; exit 3"
    done = await sh(script)
    assert done.lines == ["10000", "2%", f"{GREEN}green{PLAIN}", "windows"]
    assert done.run.attempts[0].tail == ("10000", "1%\r2%\r", f"{GREEN}green{PLAIN}\x1b[K", "windows\r")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("\r", ""),
        ("10%\r\x1b[K20%\r\r", "20%"),
        ("\x1b[2A\x1b[?25lup\x1b[1;31mred\x1b[m\x1b[?25h", "up\x1b[1;31mred\x1b[m"),
        ("\x1b]0;a title\x07\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("an escape \x1b at the end \x1b", "an escape \x1b at the end \x1b"),
    ],
)
def test_a_line_reads_as_a_terminal_shows_it(written: str, expected: str) -> None:
    assert shown(written) == expected


class _Written(Container):
    """A container that wrote some lines."""

    place, told_to_stop = "nowhere", False

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    async def age(self) -> float:
        return 0.0

    async def logs(self, after: datetime | None = None):  # type: ignore[no-untyped-def]
        for number, text in enumerate(self.texts):
            yield LogLine(datetime.now(UTC) + timedelta(seconds=number), "stdout", text)

    async def wait(self):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    async def stop(self, grace_seconds: float) -> None:
        raise NotImplementedError

    async def left(self, folder, spool, only=None):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    async def remove(self) -> None:
        raise NotImplementedError


class _Kept(list[str]):
    """A sink that keeps messages."""

    async def latest(self, since: datetime) -> datetime | None:
        return None

    async def put(self, level: int, when: datetime, message: str) -> None:
        self.append(message)

    async def flush(self) -> None:
        pass


async def test_a_secret_whose_letters_a_sequence_parts_is_masked_where_the_sequence_is_left_out() -> None:
    kept, console = _Kept(), logging.LoggerAdapter(logging.getLogger("nobody"))
    log = RunLog(kept, console, Logging(), Mask(["geheimnis"]), taken_up=False)
    await log.follow(_Written("a geheim\x1b[Knis", "geheim\rb", "geheimnis\rc"))
    assert kept == ["a ***", "b", "c"]
    assert log.tail()[2] == "***\rc"


def test_the_local_log_shows_what_a_person_can_follow_and_counts_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    now = 1.0
    console = Console(logging.LoggerAdapter(logging.getLogger("somebody")), Room(lambda: now))
    with caplog.at_level(logging.INFO, "somebody"):
        for number in range(1000):
            console.show(logging.INFO, str(number))
        now = 2.0
        console.show(logging.INFO, "later")
        console.finish()
    assert caplog.messages == [*map(str, range(200)), "(800 more lines are in Prefect only)", "later"]
