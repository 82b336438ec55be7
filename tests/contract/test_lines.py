from __future__ import annotations

import asyncio
import gc
import logging
import shutil
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from bench import Bench, first_line, read

from prefect_jobs.blocks.engine import LONGEST_LINE
from prefect_jobs.flows.log import RunLog
from prefect_jobs.flows.mask import Mask
from prefect_jobs.job import Logging

MANY = 100_000
LONG = 300_000


async def test_lines_of_both_streams_come_in_the_order_in_which_they_were_written(bench: Bench) -> None:
    script = "for i in 1 2 3; do echo out $i; sleep 0.05; echo err $i >&2; sleep 0.05; done"
    ended = await bench.run(bench.sh(script))
    assert [(line.stream, line.text) for line in ended.lines] == [
        (stream, f"{short} {number}")
        for number in (1, 2, 3)
        for stream, short in (("stdout", "out"), ("stderr", "err"))
    ]


async def test_timestamps_rise_and_lie_within_the_run(bench: Bench) -> None:
    before = datetime.now(UTC)
    ended = await bench.run(bench.sh("seq 500; sleep 0.5; seq 500 >&2"))
    after = datetime.now(UTC)
    times = [line.timestamp for line in ended.lines]
    assert len(times) == 1000
    assert before <= times[0]
    assert times[-1] <= after
    assert all(earlier < later for earlier, later in pairwise(times))
    assert times[500] - times[499] >= timedelta(seconds=0.1)


async def test_a_last_line_without_a_line_break_is_a_line(bench: Bench) -> None:
    ended = await bench.run(bench.sh("echo one; printf two; printf three >&2"))
    assert sorted(ended.texts) == ["one", "three", "two"]


async def test_empty_lines_and_blanks_are_kept(bench: Bench) -> None:
    ended = await bench.run(bench.sh(r"printf '\n  two  \n\n\tfour\r\n'"))
    assert ended.texts == ["", "  two  ", "", "\tfour\r"]


async def test_a_container_that_says_nothing_has_no_lines(bench: Bench) -> None:
    assert (await bench.run(bench.spec("true"))).lines == []


async def test_a_very_long_line_is_one_line(bench: Bench) -> None:
    ended = await bench.run(bench.sh(f"echo before; head -c {LONG} /dev/zero | tr '\\0' x; echo; echo after"))
    assert ended.texts == ["before", "x" * LONG, "after"]


@pytest.mark.parametrize("ending", ["; echo", ""], ids=["line break", "none"])
@pytest.mark.parametrize("more", [0, 1, LONGEST_LINE, LONGEST_LINE + 7])
async def test_a_line_beyond_the_longest_comes_in_parts(bench: Bench, more: int, ending: str) -> None:
    size = LONGEST_LINE + more
    ended = await bench.run(bench.sh(f"echo before >&2; head -c {size} /dev/zero | tr '\\0' x{ending}"))
    sizes = [LONGEST_LINE] * (size // LONGEST_LINE) + [size % LONGEST_LINE] * (size % LONGEST_LINE > 0)
    assert [len(line.text) for line in ended.lines if line.stream == "stdout"] == sizes


async def test_a_line_that_never_ends_is_shown_in_parts(bench: Bench) -> None:
    container = await bench.launch(bench.sh(f"head -c {LONGEST_LINE + 100_000} /dev/zero | tr '\\0' x; sleep 60"))
    async with asyncio.timeout(20):
        assert await first_line(container) == "x" * LONGEST_LINE
    await container.remove()


async def test_a_line_that_another_stream_interrupts_is_still_one_line(bench: Bench) -> None:
    part = f"head -c {LONG // 2} /dev/zero | tr '\\0' x"
    ended = await bench.run(bench.sh(f"{part}; sleep 0.2; echo between >&2; sleep 0.2; {part}; echo"))
    assert sorted(ended.texts) == ["between", "x" * (LONG // 2 * 2)]


async def test_bytes_that_are_no_text_do_not_stop_the_log(bench: Bench) -> None:
    script = r"echo before; printf 'a\377\376b\n'; printf '\303(\n'; printf 'nul\000nul\n'; printf 'ü\n'; echo after"
    ended = await bench.run(bench.sh(script))
    assert len(ended.texts) == 6
    assert (ended.texts[0], ended.texts[-2:]) == ("before", ["ü", "after"])
    assert ended.texts[1].startswith("a\N{REPLACEMENT CHARACTER}")
    assert ended.texts[1].endswith("b")
    assert ended.texts[3] == "nul\0nul"


async def test_any_bytes_at_all_are_lines(bench: Bench) -> None:
    # A program's own file.
    path = "/bin/busybox" if bench.image else "/bin/sh"
    content = Path(shutil.which("busybox") or "" if bench.image else path).read_bytes()[:MANY]
    ended = await bench.run(bench.sh(f"head -c {MANY} {path}; echo; echo after"))
    expected = [*content.split(b"\n"), b"after"]
    # How many marks stand for bytes that are no text is the engine's affair.
    assert [_ascii(text) for text in ended.texts] == [_ascii(line.decode(errors="replace")) for line in expected]


def _ascii(text: str) -> str:
    return text.encode("ascii", "ignore").decode()


async def test_colours_and_progress_bars_come_as_they_were_written(bench: Bench) -> None:
    ended = await bench.run(bench.sh(r"seq 10000 | tr '\n' '\r'; echo; printf '\033[1;32mgreen\033[0m\033[K\r\n'"))
    bar = "".join(f"{number}\r" for number in range(1, 10_001))
    assert ended.texts == [bar, "\x1b[1;32mgreen\x1b[0m\x1b[K\r"]


class _Counting:
    """A sink that takes numbered lines in their order, and keeps none."""

    def __init__(self) -> None:
        self.count = 0

    async def latest(self, since: datetime) -> datetime | None:
        return None

    async def put(self, level: int, when: datetime, message: str) -> None:
        assert int(message) == self.count
        self.count += 1

    async def flush(self) -> None:
        pass


async def test_no_line_of_many_is_lost_or_doubled_and_none_is_kept(bench: Bench) -> None:
    sink, quiet = _Counting(), logging.LoggerAdapter(logging.getLogger("nobody"))
    # As fast as a shell's tools can: a hundred thousand lines of a hundred characters.
    script = f"""awk 'BEGIN {{ for (i = 0; i < {MANY}; i++) printf "%0100d\\n", i }}'"""
    container = await bench.launch(bench.sh(script))
    log = RunLog(sink, quiet, Logging(max_lines=MANY), Mask([]), taken_up=False)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # The peak of this process counts from now (proc(5)).
    before = _megabytes("VmRSS")
    async with asyncio.timeout(120):
        await log.follow(container)
    assert sink.count == MANY
    assert _megabytes("VmHWM") - before < 12


def _megabytes(field: str) -> float:
    """The resident memory of this process, now or at its peak."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith(field))) / 1024


async def test_no_line_is_lost_when_both_streams_are_written_at_once(bench: Bench) -> None:
    ended = await bench.run(bench.sh("(seq 5000 >&2) & seq 5000; wait"))
    expected = [str(number) for number in range(1, 5001)]
    for stream in ("stdout", "stderr"):
        assert [line.text for line in ended.lines if line.stream == stream] == expected


async def test_lines_come_as_they_are_written(bench: Bench) -> None:
    before = datetime.now(UTC)
    container = await bench.launch(bench.sh("echo first; sleep 30"))
    assert await first_line(container) == "first"
    assert datetime.now(UTC) - before < timedelta(seconds=10)
    await container.stop(0)


async def test_the_log_goes_on_after_any_line_with_exactly_the_next(bench: Bench) -> None:
    part = f"head -c {LONG // 2} /dev/zero | tr '\\0' x"
    script = f"seq 2000; {part}; echo between >&2; {part}; echo; seq 1000 & seq 1000 >&2; wait"
    container = await bench.launch(bench.sh(script))
    lines = (await bench.end_of(container)).lines
    assert len(lines) == 4002
    # Where lines stand closest together, and around the long one.
    gaps = sorted(range(len(lines) - 1), key=lambda place: lines[place + 1].timestamp - lines[place].timestamp)
    for place in {0, *gaps[:10], 1999, 2000, 2001, 2002, len(lines) - 1}:
        assert await read(container, after=lines[place].timestamp) == lines[place + 1 :], place


async def test_the_log_can_be_read_again_and_by_several_at_once(bench: Bench) -> None:
    container = await bench.launch(bench.sh("seq 100; sleep 0.3; seq 100"))
    first, second = (await bench.end_of(container)).lines, await read(container)
    assert first == second


async def test_a_time_before_the_first_line_gives_all(bench: Bench) -> None:
    container = await bench.launch(bench.sh("seq 3"))
    await container.wait()
    assert len(await read(container, after=datetime(2000, 1, 1, tzinfo=UTC))) == 3
    assert await read(container, after=datetime.now(UTC)) == []
