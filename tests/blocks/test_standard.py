"""What Prefect asks of every block."""

from __future__ import annotations

import re

import pytest
from prefect.blocks.core import Block
from prefect.filesystems import RemoteFileSystem
from prefect.testing.standard_test_suites import BlockStandardTestSuite

from prefect_jobs.blocks.docker import Docker
from prefect_jobs.blocks.object_store import ObjectStore
from prefect_jobs.blocks.process import Process


@pytest.mark.parametrize("block", [Process, Docker, ObjectStore])
class TestBlocks(BlockStandardTestSuite):
    @pytest.fixture
    def block(self) -> None:
        """Given by the parameters above."""

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        # The suite downloads the logo, and the tests run without a network. Prefect's own images tell their size.
        if str(block._logo_url) == str(RemoteFileSystem._logo_url):
            return
        size = re.fullmatch(r"https://cdn\.sanity\.io/images/\S+-(\d+)x(\d+)\.png", str(block._logo_url))
        assert size is not None
        assert size[1] == size[2]
        assert 45 < int(size[1]) < 1000


@pytest.mark.parametrize("block", [Process, Docker])
def test_a_block_can_be_made_without_filling_in_anything(block: type[Block]) -> None:
    assert block().label == block.get_block_type_slug()  # type: ignore[attr-defined]


@pytest.mark.parametrize("block", [Process, Docker, ObjectStore])
def test_every_field_of_a_block_has_a_title(block: type[Block]) -> None:
    assert [name for name, field in block.model_fields.items() if not field.title] == []
