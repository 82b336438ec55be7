"""What every command of Prefect imports of this project is little."""

from __future__ import annotations

import subprocess
import sys

# Engines' clients, what runs attempts, the command line: whoever needs them imports them.
HEAVY = [
    "aiodocker",
    "aiohttp",
    "kubernetes_asyncio",
    "prefect_kubernetes",
    "cyclopts.core",
    "jsonschema",
    "prefect_jobs.blocks.docker_engine",
    "prefect_jobs.deployments.apply",
    "prefect_jobs.deployments.cli",
    "prefect_jobs.deployments.demo",
    "prefect_jobs.document",
    "prefect_jobs.flows.attempts",
    "prefect_jobs.flows.job",
]
# Prefect itself imports some of them.
IMPORTING = """
import sys, prefect.workers.base
before = set(sys.modules)
import prefect_jobs.deployments.collection as collection
assert collection.JobsWorker and collection.Docker and collection.Process
print("\\n".join(sys.modules.keys() - before))
"""


def test_the_collection_leaves_out_what_only_a_worker_or_a_command_needs() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "prefect_jobs.deployments.worker" in imported
    assert imported.isdisjoint(HEAVY), imported & set(HEAVY)
