"""A peer's turn: it is started, warmed up, measured and stopped; nothing else of the benchmark runs meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.figures import Batch, Memory, Requests, Usage
from benchmarks.leftovers import remove_leftovers
from benchmarks.measure import Start, Starts, cpu_seconds, memory
from benchmarks.peers.peer import Asked, Ground, Peer, Serving
from benchmarks.plan import Plan
from benchmarks.processes import call

_SETTLE_SECONDS = 3.0
_START_SECONDS = 300.0


class Turn:
    """What is measured of a peer that is up."""

    def __init__(self, peer: Peer, serving: Serving, ground: Ground, starts: Starts, plan: Plan) -> None:
        self.peer = peer
        self.serving = serving
        self._ground = ground
        self._starts = starts
        self._plan = plan

    @classmethod
    @asynccontextmanager
    async def of(
        cls, peer: Peer, ground: Ground, starts: Starts, plan: Plan, at_once: int, *, counting: bool = False
    ) -> AsyncIterator[Turn]:
        """A peer's turn, warmed up."""
        serving = None
        try:
            async with peer.up(ground, at_once, counting=counting) as serving:
                turn = cls(peer, serving, ground, starts, plan)
                for _ in range(plan.warm_ups):
                    await turn.single()
                await asyncio.sleep(_SETTLE_SECONDS)
                yield turn
        finally:
            if serving is not None:
                await remove_leftovers(serving.asked, serving.key)

    async def single(self) -> float:
        """One run, with nothing else to do: the seconds until its container started."""
        asked = await self.serving.start("noop", 1)
        # Its end first: a run that fails has no container to wait for.
        await self.serving.ended(asked)
        started = await self._started(asked)
        return started[asked[0].key].moment - asked[0].moment

    async def singles(self) -> list[float]:
        """Several of them, one after the other."""
        found = []
        for _ in range(self._plan.singles):
            found.append(await self.single())
            await asyncio.sleep(self._plan.pause)
        return found

    async def batch(self, runs: int, at_once: int) -> Batch:
        """Runs that are created together."""
        before = self._usage()
        asked = await self.serving.start("noop", runs)
        ended = await self.serving.ended(asked)
        used = self._usage().since(before)
        started = await self._started(asked)
        return Batch(
            runs=runs,
            at_once=at_once,
            seconds=ended - min(each.moment for each in asked),
            to_start=tuple(started[each.key].moment - each.moment for each in asked),
            used=used,
        )

    async def requests(self, runs: int, at_once: int) -> Requests:
        """What a Prefect server is asked while runs are run."""
        prefect = self.serving.prefect
        assert prefect is not None
        since = prefect.logged()
        await self.batch(runs, at_once)
        by_route = prefect.requests(since, leave_out="/create_flow_run")
        return Requests(runs=runs, requests=sum(by_route.values()), by_route=by_route)

    async def memory(self, numbers: list[int]) -> list[Memory]:
        """With so many sleeping containers at once, one number after the other; the containers are ended afterwards."""
        idle, server_idle = memory(self.serving.supervisor), memory(self.serving.server)
        found: list[Memory] = []
        batches: list[list[Asked]] = []
        containers: list[str] = []
        for number in sorted(numbers):
            batches.append(await self.serving.start("sleep", number - len(containers)))
            containers += [each.container for each in (await self._started(batches[-1])).values()]
            await asyncio.sleep(_SETTLE_SECONDS)
            found.append(
                Memory(
                    at_once=number,
                    supervisor_idle=idle,
                    supervisor=memory(self.serving.supervisor),
                    server_idle=server_idle,
                    server=memory(self.serving.server),
                    containers=await _memory_inside(containers) if self.serving.cgroup else None,
                )
            )
        if self.serving.cgroup:
            await call({}, "docker", "rm", "--force", *containers)
        else:
            await call({}, "docker", "kill", "--signal", "TERM", *containers)
            for batch in batches:
                await self.serving.ended(batch)
        return found

    def _usage(self) -> Usage:
        return Usage(
            supervisor=cpu_seconds(self.serving.supervisor),
            server=cpu_seconds(self.serving.server),
            postgres=cpu_seconds([self._ground.cluster.process.process.pid]) if self.serving.server else 0.0,
            containers=self.serving.cgroup.cpu_seconds() if self.serving.cgroup else None,
        )

    async def _started(self, asked: list[Asked]) -> dict[str, Start]:
        return await self._starts.of([each.key for each in asked], self.serving.key, _START_SECONDS)


async def _memory_inside(containers: list[str]) -> int:
    pids = await call({}, "docker", "inspect", "--format", "{{ .State.Pid }}", *containers)
    return memory(map(int, pids.split()))
