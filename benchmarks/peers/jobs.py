"""Container jobs of this project, under its own worker and under Prefect's stock process worker."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers.peer import COMMANDS, Ground, Kind
from benchmarks.peers.prefects import POOL, SLOW, PrefectPeer, PrefectServing
from benchmarks.processes import call

RUN_ID = "prefect-jobs/run-id"


class _Jobs(PrefectPeer):
    label = RUN_ID

    async def deploy(self, ground: Ground, up: PrefectServing) -> dict[Kind, str]:
        jobs = {
            kind: {"infrastructure": "docker", "image": ground.image, "command": command}
            for kind, command in COMMANDS.items()
        }
        document = up.prefect.home / "jobs.yaml"
        document.write_text(json.dumps({"jobs": jobs}))
        await call(up.prefect.env, Path(sys.executable).with_name("prefect-jobs"), "apply", document, "--pool", POOL)
        return {kind: (await up.client.get(f"/deployments/name/job/{kind}")).json()["id"] for kind in COMMANDS}


class Ours(_Jobs):
    name = "ours"
    title = "prefect-jobs worker"
    type = "prefect-jobs"

    def versions(self) -> dict[str, str]:
        return {**super().versions(), "prefect-jobs": version("prefect-jobs")}


class Process(_Jobs):
    name = "process"
    title = "Prefect's process worker, our flow"
    type = "process"
    slow = True
    most = 16
    env = {"PREFECT_WORKER_QUERY_SECONDS": "1"}
    notes = SLOW
