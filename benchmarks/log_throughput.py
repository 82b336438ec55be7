"""How fast a container's log is read, beside ``docker logs -t`` on the same container.

    python benchmarks/log_throughput.py [--image busybox] [--lines 10000 100000 1000000] [--rounds 3]

For each number of lines a container writes so many numbered lines and ends. Then its log goes into a file in several
ways, one after the other in each round, each in a process of its own: by Docker's command line, by `Container.logs`,
and by `RunLog` with a file in place of Prefect's API. With ``--infrastructure process`` there is no first way. The
figures are the medians of the rounds; a file that lacks a line, or has one twice, ends the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from uuid import UUID, uuid4

from prefect_jobs.blocks.engine import Container
from prefect_jobs.blocks.loading import load_infrastructure
from prefect_jobs.flows.log import RunLog
from prefect_jobs.flows.mask import Mask
from prefect_jobs.job import Logging
from prefect_jobs.outcome import Outcome
from prefect_jobs.spec import ContainerSpec, Identity

DOCKER, LOGS, RUN_LOG = "docker logs -t", "Container.logs", "RunLog"


class FileSink:
    """Takes records as Prefect's API would."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    async def latest(self, since: datetime) -> datetime | None:
        return None

    async def put(self, level: int, when: datetime, message: str) -> None:
        self.file.write(f"{when.isoformat()} {message}\n")

    async def flush(self) -> None:
        self.file.flush()


async def attempt(options: argparse.Namespace, run_id: UUID, lines: int, act: Any) -> Any:
    """Start the container of a run, or attach to it, and do something with it."""
    spec = ContainerSpec(image=options.image, command=["seq", str(lines)])
    identity = Identity(job="benchmark", version="1", run_id=run_id, run_name="benchmark")
    async with (await load_infrastructure(options.infrastructure)).engine() as engine:
        try:
            return await act(await engine.launch(spec, identity, {}, print))
        except BaseException:
            await engine.discard(identity)
            raise


def memory(field: str, process: int | str = "self") -> float:
    """The resident memory of a process in MB, now (``VmRSS``) or at its peak (``VmHWM``), by proc(5)."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next((line.split()[1] for line in status.splitlines() if line.startswith(field)), 0)) / 1024


def forget_peak() -> float:
    """Let the peak of this process count from now; its memory now, in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


async def read(container: Container, way: str, path: Path) -> dict[str, float]:
    """Read a log into a file; wall and CPU seconds, and by how many MB the memory of this process grew meanwhile."""
    with path.open("w") as file:
        began_with = forget_peak()
        before = resource.getrusage(resource.RUSAGE_SELF)
        start = time.perf_counter()
        if way == LOGS:
            async for line in container.logs():
                file.write(f"{line.timestamp.isoformat()} {line.text}\n")
        else:
            console = logging.LoggerAdapter(logging.getLogger("benchmark"))
            log = RunLog(FileSink(file), console, Logging(max_lines=10**9), Mask(["a secret"]), taken_up=False)
            await log.follow(container)
            await log.finish()
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = memory("VmHWM")
    return {"wall s": wall, "CPU s": cpu, "peak MB": peak, "grown MB": peak - began_with}


def by_command_line(container: str, path: Path) -> dict[str, float]:
    """The same by Docker's own command line."""
    with path.open("w") as file:
        start = time.perf_counter()
        process = subprocess.Popen(["docker", "logs", "-t", container], stdout=file, stderr=subprocess.DEVNULL)
        peak = 0.0
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peak = max(peak, memory("VmHWM", process.pid))
            time.sleep(0.02)
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        wall, usage = time.perf_counter() - start, ended[2]
    return {"wall s": wall, "CPU s": usage.ru_utime + usage.ru_stime, "peak MB": peak}


def check(path: Path, lines: int) -> None:
    """See that every line is there, once and in order."""
    with path.open() as file:
        for number in range(1, lines + 1):
            if (found := file.readline().rpartition(" ")[2].strip()) != str(number):
                sys.exit(f"line {number} of {path} is {found!r}")
        if rest := file.readline():
            sys.exit(f"{path} has more than {lines} lines: {rest!r}")


def measure(options: argparse.Namespace, lines: int, folder: Path) -> None:
    """Measure and print one size."""
    run_id, path = uuid4(), folder / "log.txt"
    container, outcome = asyncio.run(attempt(options, run_id, lines, ended))
    assert outcome.succeeded, outcome
    ways = [LOGS, RUN_LOG] if options.infrastructure == "process" else [DOCKER, LOGS, RUN_LOG]
    figures: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    try:
        for _ in range(options.rounds):
            for way in ways:
                if way == DOCKER:
                    found = by_command_line(container.id, path)
                else:
                    own = ["--infrastructure", options.infrastructure, "--image", options.image or "", "--into", path]
                    command = [sys.executable, __file__, *own, "--lines", lines, "--read", way, "--run", run_id]
                    found = json.loads(subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE).stdout)
                figures[way].append(found)
                check(path, lines)
    finally:
        asyncio.run(attempt(options, run_id, lines, lambda container: container.remove()))
    for way, rounds in figures.items():
        middle = {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
        words = "  ".join(f"{name} {value:8.2f}" for name, value in middle.items())
        ratios = [mine["wall s"] / other["wall s"] for mine, other in zip(rounds, figures[ways[0]], strict=True)]
        print(f"{lines:>9,} lines  {way:15} {words}  wall x {statistics.median(ratios):.2f}", flush=True)


async def ended(container: Container) -> tuple[Container, Outcome]:
    """A container that has written all that it will."""
    return container, await container.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infrastructure", default="docker", choices=["docker", "process"])
    parser.add_argument("--image", default="busybox", help="any image with seq")
    parser.add_argument("--lines", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    parser.add_argument("--run", type=UUID, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        found = asyncio.run(
            attempt(
                options, options.run, options.lines[0], lambda container: read(container, options.read, options.into)
            )
        )
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        for lines in options.lines:
            measure(options, lines, Path(folder))


if __name__ == "__main__":
    main()
