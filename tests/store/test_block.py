"""The block: saved and loaded, checked by a command, and a home for Prefect's own results."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient
from reach import BIN
from s3 import KEY, S3, SECRET, unique

from prefect_jobs import ObjectStore
from prefect_jobs.blocks.loading import load_store
from prefect_jobs.errors import NotFoundError

Check = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def check(prefect_api: str) -> Check:
    """Runs ``prefect-jobs store check``."""

    def run(name: str, expect: int) -> subprocess.CompletedProcess[str]:
        words = [BIN / "prefect-jobs", "store", "check", name]
        done = subprocess.run(words, capture_output=True, text=True, timeout=90)
        assert done.returncode == expect, done
        return done

    return run


async def test_a_store_is_loaded_as_it_was_saved_by_either_name(api: PrefectClient, s3: S3) -> None:
    name, block = unique(), s3.block("prefix", at_once=7, patience=9)
    await block.save(name)
    for reference in (name, f"object-store/{name}"):
        loaded = await load_store(reference)
        assert loaded.label == f"object-store/{name}"
        assert loaded.model_dump(exclude={"credentials"}) == block.model_dump(exclude={"credentials"})
        assert loaded.credentials is not None
        assert loaded.credentials.get_secret_value() == {"key": KEY, "secret": SECRET}
    document = await api.read_block_document_by_name(name, "object-store", include_secrets=False)
    assert SECRET not in document.model_dump_json()
    with pytest.raises(NotFoundError, match=r"no object store block 'missing-one'.*ObjectStore\(url=...\).save"):
        await load_store("missing-one")


async def test_the_check_says_each_step_and_its_time_and_leaves_nothing(check: Check, s3: S3) -> None:
    name, prefix = unique(), unique()
    await s3.block(prefix).save(name)
    first, *steps = check(name, expect=0).stdout.splitlines()
    assert first == f"object-store/{name}: s3://bucket/{prefix}"
    assert [re.sub(r"\d+ ms", "N ms", step) for step in steps] == [
        f"{step}: N ms" for step in ("write", "list", "read", "delete")
    ]
    assert s3.objects(prefix) == []


async def test_the_check_of_a_store_that_cannot_be_used_says_why(check: Check, s3: S3) -> None:
    name = unique()
    await s3.block(url="s3://no-such-bucket").save(name)
    done = check(name, expect=1)
    assert re.fullmatch(
        rf"object-store/{name} could not write 'prefect-jobs-check-\w+/object': NoSuchBucket: .*; make the bucket, or "
        r"mend the block's url\n",
        done.stderr,
    )
    assert "no object store block 'missing-one'" in check("missing-one", expect=1).stderr


async def test_the_check_is_at_home_in_every_store(block: ObjectStore) -> None:
    told: list[str] = []
    await block.check(told.append)
    assert len(told) == 4


async def test_results_of_prefects_own_flows_live_in_a_store(prefect_api: str, tmp_path: Path) -> None:
    block = ObjectStore(url=f"file://{tmp_path}")
    await block.save(unique())

    @flow(persist_result=True, result_storage=block)
    async def answer() -> int:
        return 42

    state = await answer(return_state=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()]
    assert await state.aresult() == 42


async def test_all_that_open_a_store_in_a_loop_share_it(block: ObjectStore) -> None:
    async with block.open() as one, block.model_copy().open() as other:
        assert one is other
        async with block.model_copy(update={"at_once": 3}).open() as another:
            assert another is not one
