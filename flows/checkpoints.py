"""The checkpoint that a job keeps from run to run: in the store, beside the run, and named as the job's last one.

Each attempt has a place of its own, so that what a name leads to is whole: the name is changed when all is there, and
what it led to before is removed then.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

from prefect_jobs.blocks.engine import Tell
from prefect_jobs.blocks.store import Store
from prefect_jobs.errors import NoSuchObject
from prefect_jobs.flows.stored import read_document
from prefect_jobs.manifest import Manifest, Name
from prefect_jobs.model import Model
from prefect_jobs.spec import Identity
from prefect_jobs.storage import run_key

_NAME = "checkpoint.json"
# Another run of the job may put a newer one in its place while it is read.
_LOOKS = 3


class _Last(Model):
    """What names a checkpoint."""

    prefix: Name
    """Where it is, below the store."""


class Checkpoints:
    """What the attempts of a run begin with, and what they leave for the next run of the job."""

    def __init__(self, store: Store, run: Identity) -> None:
        self._store = store
        self._run = run

    async def fetch(self, folder: Path, tell: Tell) -> bool:
        """Download the run's own checkpoint, or the job's last one; whether there is any.

        Raises:
            StoreError: the store, or this machine's disk, refuses.
        """
        for _ in range(_LOOKS):
            if (prefix := await self._last()) is None:
                return False
            try:
                manifest = await read_document(self._store, f"{prefix}.json", Manifest)
                await self._store.download(prefix, folder, manifest, tell)
            except NoSuchObject as error:
                missing = error
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
                continue
            tell(f"The checkpoint of run {manifest.run_id} is here: {len(manifest.files)} files")
            return True
        tell(f"The last checkpoint is not there any more, and this run begins without one: {missing}")
        return False

    async def keep(self, files: Mapping[str, Path], manifest: Manifest, tell: Tell) -> None:
        """Keep what an attempt left, and name it the last one.

        Raises:
            StoreError: the store, or this machine's disk, refuses.
        """
        prefix = self._prefix(manifest.attempt)
        sent = await self._store.upload(sorted(files.items()), prefix, tell)
        whole = manifest.model_copy(update={"files": sent})
        await self._store.write(f"{prefix}.json", whole.model_dump_json().encode())
        named = _Last(prefix=prefix).model_dump_json().encode()
        for key in self._names:
            await self._store.write(key, named)
        if manifest.attempt > 1:
            for earlier in await self._store.entries(self._key("checkpoint")):
                head = earlier.name.partition("/")[0].removesuffix(".json")
                if head != str(manifest.attempt):
                    await self._store.delete(f"{self._key('checkpoint')}/{earlier.name}")

    async def _last(self) -> str | None:
        for key in self._names:
            try:
                return (await read_document(self._store, key, _Last)).prefix
            except NoSuchObject:
                continue
        return None

    @property
    def _names(self) -> tuple[str, str]:
        """The run's own goes before the job's: a person may start it again."""
        return self._key(_NAME), f"{self._run.job}/{_NAME}"

    def _prefix(self, attempt: int) -> str:
        return self._key("checkpoint", str(attempt))

    def _key(self, *parts: str) -> str:
        return run_key(self._run.job, self._run.run_id, *parts)
