"""How fast many small files, or a large one, go to S3 and back, beside ``rclone copy`` of the same files.

    PYTHONPATH=tests/support python -m benchmarks.transfer [--files 10000] [--size 2000] [--rounds 3]

A real S3 server with keys (``rclone serve s3`` on a folder of this machine) takes the files and gives them back: by
`Store.upload` and `Store.download` of this project in a process of its own, and by ``rclone copy`` with as many
transfers at once. Both have turns in each round; the figures are medians of wall and CPU seconds and the largest
memory. This project's transfer computes a SHA-256 of each file and compares a listing with what it sent; rclone
compares sizes and MD5 sums (``--checksum``). A file that is missing or differs ends the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

AT_ONCE = 16
OURS, RCLONE = "prefect-jobs", "rclone copy"


class Took(NamedTuple):
    """What one transfer took."""

    wall: float
    cpu: float
    memory: float
    """At most, in MiB."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="how many")
    parser.add_argument("--size", type=int, default=2_000, help="of each, in bytes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--transfer", nargs=2, metavar=("DIRECTION", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.transfer:
        asyncio.run(_transfer(options.port, *options.transfer))
    else:
        with tempfile.TemporaryDirectory(prefix="prefect-jobs-transfer-") as place:
            os.environ.setdefault("PREFECT_JOBS_TEST_ROOT", place)
            _measure(options, Path(place))


def _measure(options: argparse.Namespace, place: Path) -> None:
    from folders import Folder
    from s3 import s3_of_its_own

    folder = Folder(place / "files")
    for number in range(options.files):
        folder.add(f"{number % 100}/{number}", options.size)
    took: dict[tuple[str, str], list[Took]] = {}
    for number in range(options.rounds):
        for way in (OURS, RCLONE):
            back = place / "back"
            # A server of its own: it knows nothing of what the one before it had.
            with s3_of_its_own(place / f"server-{number}-{way.replace(' ', '-')}") as server:
                for direction in ("up", "down"):
                    words = _command(way, direction, server.port, folder.path if direction == "up" else back)
                    took.setdefault((way, direction), []).append(_call(words, server.port))
            if not folder.same_as(back):
                sys.exit(f"{way}: what came back is not what was sent")
            shutil.rmtree(back)
            shutil.rmtree(server.folder)
    size = options.files * options.size / 2**20
    print(f"{options.files} files, {size:.1f} MiB together, {AT_ONCE} at once, medians of {options.rounds} rounds")
    print("| | wall s | CPU s | at most MiB |\n|---|---:|---:|---:|")
    for (way, direction), each in took.items():
        wall, cpu, memory = (statistics.median(part) for part in zip(*each, strict=True))
        print(f"| {way}, {direction} | {wall:.1f} | {cpu:.1f} | {memory:.0f} |")


def _command(way: str, direction: str, port: int, folder: Path) -> list[str]:
    if way == OURS:
        return [sys.executable, "-m", "benchmarks.transfer", "--port", str(port), "--transfer", direction, str(folder)]
    from s3 import BUCKET, rclone

    there = f":s3:{BUCKET}/benchmark"
    ends = [str(folder), there] if direction == "up" else [there, str(folder)]
    options = ["--transfers", str(AT_ONCE), "--checkers", str(AT_ONCE), "--checksum", "--config", os.devnull]
    return [str(rclone()), "copy", *ends, *options]


def _call(words: list[str], port: int) -> Took:
    """Run a command to its end; what it took, by wait4(2)."""
    from s3 import KEY, SECRET

    rclone = {
        "RCLONE_S3_PROVIDER": "Rclone", "RCLONE_S3_ACCESS_KEY_ID": KEY, "RCLONE_S3_SECRET_ACCESS_KEY": SECRET,
        "RCLONE_S3_ENDPOINT": f"http://127.0.0.1:{port}", "RCLONE_S3_NO_CHECK_BUCKET": "true",
    }  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(words, env=os.environ | rclone)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(words)} ended with exit code {process.returncode}")
    return Took(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


async def _transfer(port: int, direction: str, folder: str) -> None:
    from s3 import S3

    block = S3(Path(), port).block("benchmark", at_once=AT_ONCE)
    path = Path(folder)
    files = [(str(each.relative_to(path)), each) for each in path.rglob("*") if each.is_file()]  # noqa: ASYNC240
    async with block.open() as store:
        if direction == "up":
            await store.upload(files, "out")
        else:
            await store.download("out", path)


if __name__ == "__main__":
    main()
