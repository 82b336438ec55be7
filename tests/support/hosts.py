"""Infrastructures under test, and how to look behind their backs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from prefect_jobs.blocks.infrastructure import Infrastructure


@dataclass(frozen=True)
class Host:
    """An infrastructure, and how to look behind its back."""

    block: Infrastructure
    left_by: Callable[[UUID], list[str]]
    """Everything that is still there of a run, containers and volumes and folders alike."""
    forget_volume: Callable[[str], object]
    """Removes a named volume, which outlives runs by design, once no container uses it."""
    image: str | None = None


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout


def process_host(home: Path) -> Host:
    from prefect_jobs.blocks.process import Process

    def left_by(run_id: UUID) -> list[str]:
        return sorted(map(str, home.glob(f"**/*{run_id}*")))

    return Host(Process(home=home), left_by, lambda name: None)


def docker_host(image: str) -> Host:
    from prefect_jobs.blocks.docker import Docker

    def left_by(run_id: UUID) -> list[str]:
        mine = ("--filter", f"label=prefect-jobs/run-id={run_id}")
        containers = docker("ps", "-a", *mine, "--format", "{{ .Names }}").split()
        labelled = docker("volume", "ls", *mine, "--format", "{{ .Name }}").split()
        named = docker("volume", "ls", "--filter", f"name={run_id}", "--format", "{{ .Name }}").split()
        return sorted({*containers, *labelled, *named})

    return Host(Docker(), left_by, lambda name: docker("volume", "rm", "--force", name), image)


def processes_with(mark: str) -> list[int]:
    """Processes of this machine, those in containers included, whose command line holds the mark."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if mark in file.read().decode(errors="replace").split("\0"):
                found.append(int(pid))
    return found
