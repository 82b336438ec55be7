"""Every peer side by side, in one run on one machine.

    make bench [PEERS=ours,airflow] [ROUNDS=3] [RUNS=40] [BENCH='--many 200 --singles 4 …']

In each round every peer has a turn: it is started with servers of its own, warmed up, measured and stopped, so that
nothing of another one runs meanwhile; Postgres stays. After the rounds each has one more turn for requests and memory.
Figures are medians over the rounds. A run that ends otherwise than well, or a container that is missing, ends the
benchmark. The page and the chart are only rewritten by a run over all peers and at least three rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import platform
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import aiodocker
import psutil
from images import busybox_image

from benchmarks import chart, table
from benchmarks.figures import Conditions, Memory, PeerFigures, Requests, Results, Round
from benchmarks.measure import Starts, container_starts
from benchmarks.peers.airflow import Airflow
from benchmarks.peers.bare import Bare
from benchmarks.peers.docker_worker import DockerWorker
from benchmarks.peers.jobs import Ours, Process
from benchmarks.peers.peer import Ground, Peer
from benchmarks.peers.prefects import PrefectPeer
from benchmarks.plan import Plan
from benchmarks.processes import call
from benchmarks.servers import postgres, postgres_program
from benchmarks.turn import Turn

PROJECT = Path(__file__).parents[1]
CACHE = PROJECT / ".cache/bench"
PEERS: tuple[Peer, ...] = (Bare(), Ours(), Airflow(), Process(), DockerWorker())


def say(words: str) -> None:
    print(f"{datetime.now().astimezone():%H:%M:%S} {words}", flush=True)


async def conditions(versions: dict[str, str], load: tuple[float, float, float]) -> Conditions:
    """Where and when it is measured."""
    engine = (await call({}, "docker", "version", "--format", "{{ .Server.Version }}")).strip()
    server = (await call({}, postgres_program("postgres"), "--version")).split()[2]
    return Conditions(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=f"{_processor()}, Linux {platform.release()}",
        cores=len(os.sched_getaffinity(0)),
        memory=psutil.virtual_memory().total,
        load_average=load,
        versions={**versions, "Python": platform.python_version(), "Docker": engine, "Postgres": server},
    )


def _processor() -> str:
    name = Path("/proc/cpuinfo").read_text().partition("model name")[2].partition("\n")[0]
    return name.lstrip("\t :") or platform.machine()


async def measure_round(peer: Peer, ground: Ground, starts: Starts, plan: Plan) -> Round:
    """One peer's part of a round."""
    async with Turn.of(peer, ground, starts, plan, plan.at_once) as turn:
        singles = await turn.singles()
        batch = await turn.batch(plan.runs_of(peer), plan.at_once)
    full = None
    if not peer.slow and plan.full_runs:
        async with Turn.of(peer, ground, starts, plan, plan.full_at_once) as turn:
            full = await turn.batch(plan.full_runs, plan.full_at_once)
    found = Round(singles=tuple(singles), batch=batch, full=full)
    say(f"{peer.name}: {batch.runs} runs in {batch.seconds:.1f} s, to start {min(singles):.2f} to {max(singles):.2f} s")
    return found


async def measure_requests(peer: Peer, ground: Ground, starts: Starts, plan: Plan) -> Requests | None:
    """Requests to the API, of a peer that has a Prefect server."""
    if not isinstance(peer, PrefectPeer):
        return None
    async with Turn.of(peer, ground, starts, plan, plan.at_once, counting=True) as turn:
        return await turn.requests(plan.runs_of(peer), plan.at_once)


async def measure_memory(peer: Peer, ground: Ground, starts: Starts, plan: Plan) -> tuple[Memory, ...]:
    """Memory with sleeping containers; the last that is measured, for it may be more than a machine can do."""
    async with Turn.of(peer, ground, starts, plan, plan.many_of(peer)) as turn:
        memory = await turn.memory(plan.numbers_of(peer))
    say(f"{peer.name}: {memory[-1].supervisor >> 20} MiB at {memory[-1].at_once} at once")
    return tuple(memory)


async def measure(peers: list[Peer], plan: Plan) -> Results:
    """All peers, round by round; whoever ends this process with SIGTERM or Ctrl-C ends all that it started."""
    if (task := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    load = os.getloadavg()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prefect-jobs-bench-")))
        cluster = await stack.enter_async_context(postgres())
        docker = await stack.enter_async_context(aiodocker.Docker())
        starts = await stack.enter_async_context(container_starts(docker))
        image = busybox_image()
        CACHE.mkdir(parents=True, exist_ok=True)
        grounds = {peer: Ground(folder, CACHE, cluster, image, plan.counts(peer)) for peer in peers}
        for peer in peers:
            await peer.prepare(grounds[peer])
        rounds: dict[Peer, list[Round]] = {peer: [] for peer in peers}
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}")
            for peer in peers:
                rounds[peer].append(await measure_round(peer, grounds[peer], starts, plan))
        say("requests and memory")
        requests = {peer: await measure_requests(peer, grounds[peer], starts, plan) for peer in peers}
        memory: dict[Peer, tuple[Memory, ...]] = {}
        notes = {peer: list(peer.notes) for peer in peers}
        for peer in peers:
            try:
                memory[peer] = await measure_memory(peer, grounds[peer], starts, plan)
            except (RuntimeError, TimeoutError) as error:
                memory[peer] = ()
                notes[peer].append(f"memory could not be measured: {str(error).splitlines()[0]}")
                say(f"{peer.name}: {error}")
    versions = {name: number for peer in peers for name, number in peer.versions().items()}
    return Results(
        conditions=await conditions(versions, load),
        peers=tuple(
            PeerFigures(
                name=peer.name, title=peer.title, rounds=tuple(rounds[peer]), memory=memory[peer],
                requests=requests[peer], notes=tuple(notes[peer]),
            )
            for peer in peers
        ),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [peer.name for peer in PEERS]
    parser.add_argument("--peers", default=",".join(names), help=f"Some of {', '.join(names)}.")
    for field in dataclasses.fields(Plan):
        kind = float if field.name == "pause" else int
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    options = vars(parser.parse_args())
    wanted = options.pop("peers").split(",")
    if unknown := set(wanted) - set(names):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    plan = Plan(**options)
    began = time.monotonic()
    try:
        results = asyncio.run(measure([peer for peer in PEERS if peer.name in wanted], plan))
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    say(f"measured in {(time.monotonic() - began) / 60:.0f} minutes")
    whole = len(results.peers) == len(PEERS) and plan.rounds >= 3
    folder = PROJECT / "benchmarks" if whole else CACHE
    (folder / "results.json").write_text(results.model_dump_json(indent=1) + "\n")
    if whole:
        table.write(PROJECT / "benchmarks/README.md", results)
        chart.write(PROJECT / "docs/images/benchmark.svg", results)
    print(table.markdown(results))
    print(f"{folder / 'results.json'} has the raw figures", file=sys.stderr)


if __name__ == "__main__":
    main()
