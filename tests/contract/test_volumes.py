from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from bench import Bench, bench_on
from hosts import Host

from prefect_jobs.blocks.infrastructure import Infrastructure
from prefect_jobs.spec import ContainerSpec, Mount


@pytest.fixture
def volume(host: Host) -> Iterator[str]:
    """The name of a volume that is there no more after the test. Asked for before the bench, whose runs go first."""
    name = f"kept-{uuid4()}"
    yield name
    host.forget_volume(name)


def _spec(bench: Bench, volume: str, script: str) -> ContainerSpec:
    variable = "JOB_VOLUME_" + volume.replace("-", "_").upper()
    script = f'place="${{{variable}:-/kept}}"; {script}'
    return bench.sh(script, mounts=[Mount(source=volume, target="/kept")])


async def test_a_named_volume_is_kept_from_run_to_run(volume: str, bench: Bench) -> None:
    writer = bench.identity()
    await bench.run(_spec(bench, volume, 'echo data > "$place/file"'), writer)
    await bench.engine.discard(writer)
    await bench.engine.release(writer.run_id)
    ended = await bench.run(_spec(bench, volume, 'cat "$place/file"'))
    assert ended.texts == ["data"]


async def test_two_runs_share_a_named_volume_at_the_same_time(volume: str, bench: Bench) -> None:
    waiting = await bench.launch(_spec(bench, volume, 'until [ -e "$place/go" ]; do sleep 0.05; done; echo went'))
    await bench.run(_spec(bench, volume, 'touch "$place/go"'))
    assert (await bench.end_of(waiting)).texts == ["went"]


async def test_a_host_folder_that_the_block_allows_is_the_hosts(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "in").write_text("from the host\n")
    block: Infrastructure = host.block.model_copy(update={"allow_host_folders": [str(folder)]})
    async with bench_on(block, host.image) as bench:
        spec = bench.sh(
            f"cat {folder}/in; echo out > {folder}/out", mounts=[Mount(source=str(folder), target=str(folder))]
        )
        block.check(spec, "bench")
        assert (await bench.run(spec)).texts == ["from the host"]
    assert (folder / "out").read_text() == "out\n"
