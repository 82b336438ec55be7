"""A full disk or too many open files cost lines and clients, not the job."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from bench import Bench, first_line, read

from prefect_jobs.outcome import Reason
from prefect_jobs.spec import Identity

# Beyond that, a write fails as on a full disk: in the middle of a line, and with an error of its own.
FULL = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))"
FEW = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (20, 4096))"


async def test_a_job_goes_on_when_its_log_cannot_be_written(
    bench: Bench, first: Callable[[str], None], tmp_path: Path
) -> None:
    first(FULL)
    ended = await bench.run(bench.sh(f"seq 2000; echo done > {tmp_path}/mark; exit 4"))
    assert (tmp_path / "mark").read_text() == "done\n"
    assert (ended.outcome.reason, ended.outcome.exit_code) == (Reason.FAILED, 4)
    *whole, last = ended.texts
    assert whole == [str(number) for number in range(1, len(whole) + 1)]
    assert 100 < len(whole) < 2000
    assert (
        last
        == f"prefect-jobs: {2000 - len(whole)} lines could not be written to the log, or not whole: the disk was full"
    )
    assert last.removeprefix("prefect-jobs: ") in ended.outcome.message


async def test_the_log_keeps_its_form_when_there_is_room_again(bench: Bench, first: Callable[[str], None]) -> None:
    first(
        "class Log:\n"
        "    def __init__(self, file): self.file, self.room = file, [300, 0, 3, 0, 7, 0, 0, 60]\n"
        "    def write(self, data):\n"
        "        room = self.room.pop(0) if self.room else len(data)\n"
        "        if not room: raise OSError(28, 'No space left on device')\n"
        "        return self.file.write(data[:room])\n"
        "class Shim(shim.Shim):\n"
        "    def __init__(self, request):\n"
        "        super().__init__(request)\n"
        "        self.log = Log(self.log)\n"
        "shim.Shim = Shim\n"
    )
    container = await bench.launch(bench.sh("seq 1000 1100"))
    ended = await bench.end_of(container)
    *lines, last = ended.texts
    whole = [text for text in lines if len(text) == 4]
    assert whole == sorted(whole)
    assert whole[-1] == "1100"
    assert last.startswith("prefect-jobs: 4 lines could not be written")
    assert len(whole) >= 101 - 4
    assert await read(container) == ended.lines


async def test_too_many_clients_are_left_waiting_and_the_job_goes_on(
    bench: Bench,
    first: Callable[[str], None],
    folder: Callable[[Identity], Path],
    processes_of: Callable[[UUID], list[int]],
    tmp_path: Path,
) -> None:
    first(FEW)
    identity = bench.identity()
    container = await bench.launch(
        bench.sh(f"echo up; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; setsid sleep 60 & exit 6"), identity
    )
    await first_line(container)
    descriptor = os.open(folder(identity), os.O_RDONLY)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(os.close, descriptor)
        for _ in range(20):
            _, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{descriptor}/shim.sock")
            stack.callback(writer.close)
        await asyncio.sleep(0.3)
        (tmp_path / "go").touch()
        async with asyncio.timeout(20):
            outcome = await container.wait()
    assert (outcome.reason, outcome.exit_code) == (Reason.FAILED, 6)
    assert processes_of(identity.run_id) == []
