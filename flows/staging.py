"""What a run takes from object storage before an attempt, and what is kept there after it."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect_jobs.blocks.engine import Container, Tell
from prefect_jobs.blocks.files import Folder, Left, Staged
from prefect_jobs.blocks.object_store import ObjectStore
from prefect_jobs.blocks.spool import RESCUED_DAYS, rescue
from prefect_jobs.blocks.store import Store
from prefect_jobs.blocks.store_place import shown
from prefect_jobs.errors import InfrastructureError, NoSuchObject, StoreError
from prefect_jobs.flows.checkpoints import Checkpoints
from prefect_jobs.flows.mask import Mask, MaskedLines
from prefect_jobs.flows.stored import read_document, read_manifest
from prefect_jobs.handed import Handed, HandedRun
from prefect_jobs.job import Job
from prefect_jobs.manifest import File, Manifest, Skipped
from prefect_jobs.outcome import Outcome
from prefect_jobs.spec import ContainerSpec, Identity
from prefect_jobs.storage import STEP, STORE, run_key

_logger = logging.getLogger("prefect_jobs.staging")

RESULT = "result.json"
RESULT_BYTES = 128 * 1024
# Inputs of a job without a store are read with what this machine's environment has.
AMBIENT = ObjectStore(url="file:///")
_MOST_NAMED = 20
_STEPS_AT_ONCE = 8
_DEEPEST = 100
_OWN, _STEP = f"{STORE}://", f"{STEP}://"


class Staging:
    """The state of one run: its inputs, its outputs, its checkpoint and its log."""

    def __init__(self, job: Job, spec: ContainerSpec, run: Identity, store: Store, mask: Mask) -> None:
        self._job = job
        self._spec = spec
        self._run = run
        self._store = store
        self._mask = mask
        self._checkpoints = Checkpoints(store, run)
        self._keeps = job.state is not None

    def key(self, *parts: str) -> str:
        """A key of this run."""
        return run_key(self._run.job, self._run.run_id, *parts)

    @property
    def environment(self) -> dict[str, str]:
        """Where a container with a client of its own finds the same places."""
        if not self._keeps:
            return {}
        return {
            "JOB_INPUT_URI": json.dumps(self.sources),
            "JOB_OUTPUT_URI": self._store.uri(self.key("output")),
            "JOB_CHECKPOINT_URI": self._store.uri(self.key("checkpoint")),
        }

    @property
    def sources(self) -> dict[str, str]:
        """The inputs by name, wherever they are."""
        return {name: self._source(uri) for name, uri in self._spec.inputs.items()}

    @property
    def lineage(self) -> list[str]:
        """What its outputs are made of, as Prefect's assets name it: of a step, the outputs of its job."""
        return [
            self._store.uri(job)
            if uri.startswith(_STEP) and (job := uri.partition("#")[2])
            else shown(self._source(uri))
            for uri in self._spec.inputs.values()
        ]

    def _source(self, uri: str) -> str:
        if uri.startswith(_STEP):
            return self._store.uri(uri.removeprefix(_STEP).partition("#")[0])
        return self._store.uri(uri.removeprefix(_OWN)) if uri.startswith(_OWN) else uri

    async def stage(self, spool: Path, tell: Tell, *, begins: bool) -> Staged:
        """What the container is to find in its folders when it starts.

        ``begins`` says that no attempt has had a container since the run was started, so that its checkpoint is empty.

        Raises:
            NoSuchObject: an input is not there.
            StoreError: the store, or this machine's disk, refuses.
        """
        staged: dict[Folder, Path] = {}
        if self._keeps:
            # What the run will leave must find a place: better to know before hours of work than after.
            known = {"job": self._run.job, "version": self._run.version, "run_name": self._run.run_name}
            await self._store.write(self.key("run.json"), json.dumps(known).encode())
            if self._run.attempt > 1:
                # A container may write there itself: what an earlier attempt left is gone before this one begins.
                await self._store.delete(self.key("manifest.json"))
                await self._store.delete(self.key("output"))
        if self._spec.inputs:
            staged["input"] = folder = spool / "input"
            for name, uri in self._spec.inputs.items():
                await self._input(name, uri, folder, spool / "arriving", tell)
        if self._job.checkpoint == "job" and begins and await self._checkpoints.fetch(spool / "checkpoint", tell):
            staged["checkpoint"] = spool / "checkpoint"
        return staged

    async def _input(self, name: str, uri: str, folder: Path, arriving: Path, tell: Tell) -> None:
        if uri.startswith(_STEP):
            await self._step(uri.removeprefix(_STEP).partition("#")[0], folder / name, tell)
            return
        source = uri.removeprefix(_OWN)
        try:
            manifest = await self._manifest_of(source)
            files = await self._store.download(source, arriving / name, manifest, tell)
        except NoSuchObject as error:
            raise NoSuchObject(f"input {name!r}, {shown(uri)}: {error}") from error
        arrived = arriving / name / files[0].name if files.single else arriving / name
        await asyncio.to_thread(_move, arrived, folder / name)
        tell(f"Input {name!r}: {_amount(files)} from {shown(uri)}")

    async def _step(self, prefix: str, folder: Path, tell: Tell) -> None:
        """All results of an earlier step of a pipeline, and the outputs of each of its runs."""
        handed = await read_document(self._store, f"{prefix}/results.json", Handed)
        gate = asyncio.Semaphore(_STEPS_AT_ONCE)

        async def take(branch: HandedRun) -> list[File]:
            # A container may have written there: nothing but outputs of this store is taken, and into this folder.
            if (key := self._own_key(str(branch.outputs))) is None:
                raise StoreError(f"{branch.outputs}, of {prefix}/results.json, is not below the job's store")
            async with gate:
                inner = folder / str(branch.index) if handed.matrix else folder
                return await self._store.download(key, inner, await self._manifest_of(key))

        taken = await asyncio.gather(*(take(branch) for branch in handed.branches if branch.outputs is not None))
        files = [file for some in taken for file in some]
        content = f"{handed.model_dump_json(indent=1)}\n".encode()
        await asyncio.to_thread(_write, folder / "results.json", content)
        tell(f"Input {folder.name!r}: {len(handed.branches)} results, {_amount(files)}")

    def _own_key(self, source: str) -> str | None:
        """A key of the job's own store; None where a URI leads elsewhere."""
        if "://" not in source:
            return source.strip("/")
        own = f"{self._store.uri('')}/"
        return source.removeprefix(own).strip("/") if source.startswith(own) else None

    async def _manifest_of(self, source: str) -> Manifest | None:
        """What the outputs of another run hold: no more and no less than its manifest names."""
        key = self._own_key(source)
        if key is None or not key.endswith("/output"):
            return None
        try:
            return await read_manifest(self._store, key.removesuffix("/output"))
        except NoSuchObject as error:
            raise NoSuchObject(
                f"there is no manifest beside it, so the run that writes there has not ended: {error}"
            ) from error

    async def keep(self, container: Container, outcome: Outcome, spool: Path, tell: Tell) -> Outcome:
        """Keep what an attempt left that has ended, the manifest last; the outcome with its result.

        Raises:
            StoreError: the store, or this machine's disk, refuses.
            InfrastructureError: the files cannot be had.
        """
        if not self._keeps:
            left = await container.left("output", spool / "output", RESULT)
            return self._with_result(outcome, left, tell)
        await self._store.delete(self.key("manifest.json"))
        left = await container.left("output", spool / "output")
        files = await self._store.upload(sorted(left.files.items()), self.key("output"), tell, keep_others=True)
        for name, why in list(left.skipped.items())[:_MOST_NAMED]:
            tell(f"Not kept: '{name}', because {why}")
        if self._job.checkpoint == "job":
            there = await container.left("checkpoint", spool / "left-checkpoint")
            await self._checkpoints.keep(there.files, self._manifest(outcome, [], there), tell)
        if self._job.logging.store:
            await self._keep_log(container, outcome.attempt, spool)
        outcome = self._with_result(outcome, left, tell)
        manifest = self._manifest(outcome, files, left)
        await self._store.write(self.key("manifest.json"), manifest.model_dump_json(indent=1).encode())
        uri = self._store.uri(self.key("output"))
        if files:
            tell(f"Outputs: {_amount(files)} in {uri}")
        return outcome.model_copy(update={"outputs": uri})

    async def rescue(self, container: Container, spool: Path) -> str:
        """Keep on this machine what the store refused; what to say of it, nothing where that goes no better."""
        try:
            left = await container.left("output", spool / "output")
            if not left.files:
                return ""
            place = await rescue(f"{self._run.run_id}-{self._run.attempt}", left.files)
        except (InfrastructureError, OSError) as error:
            _logger.warning("What run %s left could not be kept on this machine either: %s", self._run.run_id, error)
            return ""
        count = f"{len(left.files)} file{'s' * (len(left.files) != 1)}"
        return f". Its outputs ({count}) are on {socket.gethostname()} for {RESCUED_DAYS} days: {place}"

    def _manifest(self, outcome: Outcome, files: list[File], left: Left) -> Manifest:
        return Manifest(
            job=self._run.job,
            run_id=str(self._run.run_id),
            version=self._run.version,
            attempt=outcome.attempt,
            outcome=outcome.reason,
            exit_code=outcome.exit_code,
            written=datetime.now(UTC),
            files=files,
            skipped=[Skipped(name=name, why=why) for name, why in left.skipped.items()],
        )

    def _with_result(self, outcome: Outcome, left: Left, tell: Tell) -> Outcome:
        """The outcome with the small JSON result that the container left, where that is one."""
        if (path := left.files.get(RESULT)) is None:
            return outcome
        if (size := path.stat().st_size) > RESULT_BYTES:
            tell(f"{RESULT} is no result: it has {size:,} bytes, and at most {RESULT_BYTES:,} are taken")
            return outcome
        try:
            result = json.loads(self._mask(path.read_text(encoding="utf-8")), parse_constant=_refuse)
            # An escape may stand for what is no character, which neither an API nor a database takes.
            json.dumps(result, ensure_ascii=False).encode()
            if _is_deeper(result, _DEEPEST):
                raise RecursionError
        except ValueError as error:
            tell(f"{RESULT} is no result: it is not JSON: {error}")
            return outcome
        except RecursionError:
            tell(f"{RESULT} is no result: it is nested more than {_DEEPEST} levels deep")
            return outcome
        return outcome.model_copy(update={"result": result})

    # -- the complete log

    async def _keep_log(self, container: Container, attempt: int, spool: Path) -> None:
        """Every line of the container with its time, read once more, for an earlier supervisor may have had them."""
        path, key = spool / "log.txt", self.key("log.txt" if attempt == 1 else f"log-{attempt}.txt")
        masked = MaskedLines(self._mask)
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            async for line in container.logs():
                file.write(f"{line.timestamp.isoformat()} {line.stream} {masked(line)}\n")
        await self._store.send(path, key)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _is_deeper(value: Any, most: int) -> bool:
    """Whether a JSON value has more levels of lists and objects."""
    level = [value]
    for _ in range(most + 1):
        inner = [list(each.values()) if isinstance(each, dict) else each for each in level]
        level = [item for each in inner if isinstance(each, list) for item in each]
        if not level:
            return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _amount(files: list[File]) -> str:
    size = sum(file.size for file in files)
    return f"{len(files)} file{'s' * (len(files) != 1)}, {size / 2**20:.1f} MiB"
