"""The container's lines in the run's log."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import pairwise

from ran import Ran

Sh = Callable[..., Awaitable[Ran]]


async def test_lines_have_the_containers_own_times_in_their_order(sh: Sh) -> None:
    done = await sh("for i in 1 2 3 4 5; do echo $i; sleep 0.1; done")
    assert done.lines == ["1", "2", "3", "4", "5"]
    outcome = done.run.outcome
    assert outcome is not None
    assert outcome.started is not None
    assert outcome.ended is not None
    times = [record.timestamp for record in done.records]
    assert outcome.started <= times[0]
    assert times[-1] <= outcome.ended
    assert all(later - earlier > timedelta(seconds=0.05) for earlier, later in pairwise(times))


async def test_many_lines_are_all_there_once_and_in_order(sh: Sh) -> None:
    done = await sh("seq 3000")
    assert done.lines == [str(number) for number in range(1, 3001)]


async def test_lines_of_many_attempts_follow_one_another(sh: Sh) -> None:
    done = await sh('seq ${JOB_ATTEMPT}00 ${JOB_ATTEMPT}05; [ "$JOB_ATTEMPT" = 2 ]', retries=1)
    assert done.lines == [*map(str, range(100, 106)), *map(str, range(200, 206))]


async def test_stdout_is_information_and_stderr_a_warning(sh: Sh) -> None:
    done = await sh("echo out; echo err >&2")
    assert {record.message: record.level for record in done.records} == {"out": logging.INFO, "err": logging.WARNING}


async def test_a_level_keeps_what_is_below_it_out_of_the_log(sh: Sh) -> None:
    done = await sh("echo out; echo err >&2", logging={"level": "WARNING"})
    assert done.lines == ["err"]
    assert (await sh("echo out; echo err >&2", logging={"level": "ERROR"})).lines == []


async def test_the_log_in_prefect_can_be_switched_off_and_the_message_still_has_the_last_lines(sh: Sh) -> None:
    done = await sh("echo out; echo err >&2; exit 1", logging={"prefect": False})
    assert done.lines == []
    assert done.message == "exit code 1\nerr"


async def test_what_no_database_takes_is_replaced(sh: Sh) -> None:
    done = await sh(r"printf 'nul\000nul\n'; printf 'bad \377 byte\n'; echo ü😀")
    replacement = "\N{REPLACEMENT CHARACTER}"
    assert done.lines == [f"nul{replacement}nul", f"bad {replacement} byte", "ü😀"]


async def test_a_percent_sign_is_a_percent_sign(sh: Sh) -> None:
    assert (await sh("echo '100 %s %d {x}'")).lines == ["100 %s %d {x}"]


async def test_a_line_of_a_megabyte_does_not_stop_the_log(sh: Sh) -> None:
    done = await sh("echo before; head -c 900000 /dev/zero | tr '\\0' x; echo; echo after")
    assert (done.lines[0], done.lines[-1], len(done.lines)) == ("before", "after", 3)
    assert done.lines[1].startswith("xxxx")
