"""A job may ask for no more than its block allows, and is told who would have to open what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prefect_jobs.blocks.docker import Docker
from prefect_jobs.blocks.infrastructure import Infrastructure
from prefect_jobs.blocks.process import Process
from prefect_jobs.errors import NotAllowedError
from prefect_jobs.spec import ContainerSpec, Mount, Security


def _spec(**fields: Any) -> ContainerSpec:
    return ContainerSpec(**{"image": "x", "command": ["true"], **fields})


def _folder(source: str) -> ContainerSpec:
    return _spec(mounts=[Mount(source=source, target=source)])


# What is asked for, the field of the block that opens it, with what value, and what the message says.
RIGHTS: list[tuple[ContainerSpec, str, Any, str]] = [
    (_folder("/srv/data/iris"), "allow_host_folders", ["/srv/data/iris"], "/srv/data/iris"),
    (_spec(security=Security(privileged=True)), "allow_privileged", True, "security.privileged"),
    (_spec(security=Security(host_network=True)), "allow_host_network", True, "security.host_network"),
    (_spec(security=Security(capabilities=["NET_ADMIN"])), "allow_capabilities", ["NET_ADMIN"], "'NET_ADMIN'"),
    (_spec(security=Security(devices=["/dev/fuse"])), "allow_devices", ["/dev/fuse"], "'/dev/fuse'"),
]
IDS = [field for _, field, _, _ in RIGHTS]


@pytest.mark.parametrize("block_type", [Docker, Process])
@pytest.mark.parametrize(("spec", "field", "opened", "words"), RIGHTS, ids=IDS)
def test_a_right_that_the_block_does_not_give_is_refused_with_its_field(
    block_type: type[Infrastructure], spec: ContainerSpec, field: str, opened: Any, words: str
) -> None:
    with pytest.raises(NotAllowedError) as refused:
        block_type().check(spec, "train")
    message = str(refused.value)
    assert message.startswith(f"job 'train' is not allowed on {block_type.get_block_type_slug()}: ")
    assert field in message
    assert words in message


@pytest.mark.parametrize("block_type", [Docker, Process])
@pytest.mark.parametrize(("spec", "field", "opened", "words"), RIGHTS, ids=IDS)
def test_a_right_that_the_block_gives_is_given(
    block_type: type[Infrastructure], spec: ContainerSpec, field: str, opened: Any, words: str
) -> None:
    block_type(**{field: opened}).check(spec, "train")


def test_one_right_opens_no_other() -> None:
    block = Docker(allow_host_folders=["/srv/other"], allow_capabilities=["SYS_TIME"], allow_devices=["/dev/null"])
    for spec, field, _, _ in RIGHTS:
        with pytest.raises(NotAllowedError, match=field):
            block.check(spec, "train")


def test_all_that_is_not_allowed_is_named_at_once() -> None:
    spec = _spec(
        mounts=[Mount(source="/a", target="/a"), Mount(source="/b", target="/b")],
        security=Security(privileged=True, host_network=True, capabilities=["A", "B"], devices=["/dev/c"]),
    )
    with pytest.raises(NotAllowedError) as refused:
        Docker().check(spec, "train")
    for word in ("'/a'", "'/b'", "privileged", "host_network", "'A'", "'B'", "'/dev/c'"):
        assert word in str(refused.value)


@pytest.mark.parametrize(
    "source",
    [
        "/",
        "/srv",
        "/srv/database",
        "/srv/data/../etc",
        "/srv/data/..",
        "/srv/data/sub/../../../etc",
        "/srv/data/./../etc",
        "//srv/data",
        "/SRV/DATA",
        "/srv/data/a-link-that-a-job-left",
        "/srv/data /etc",
    ],
)
def test_no_way_of_writing_a_path_leads_out_of_an_allowed_folder(source: str) -> None:
    with pytest.raises(NotAllowedError, match="allow_host_folders"):
        Docker(allow_host_folders=["/srv/data"]).check(_folder(source), "train")


@pytest.mark.parametrize("source", ["/srv/data", "/srv/data/"])
def test_an_allowed_folder_can_be_mounted(source: str) -> None:
    Docker(allow_host_folders=["/srv/data"]).check(_folder(source), "train")


def test_a_named_volume_needs_no_permission() -> None:
    Docker().check(_spec(mounts=[Mount(source="scratch", target="/scratch")]), "train")


def test_a_container_needs_an_image_and_a_process_a_command() -> None:
    with pytest.raises(NotAllowedError, match="job 'train' is not allowed on docker: it has no image"):
        Docker().check(_spec(image=None), "train")
    with pytest.raises(NotAllowedError, match="job 'train' is not allowed on process: it has no command"):
        Process().check(_spec(command=None), "train")
    Docker().check(_spec(command=None), "train")
    Process().check(_spec(image=None), "train")


def test_a_process_cannot_have_what_only_a_container_has() -> None:
    block = Process(allow_host_folders=["/srv"])
    with pytest.raises(NotAllowedError, match=r"'/srv/data' at '/elsewhere'"):
        block.check(_spec(mounts=[Mount(source="/srv/data", target="/elsewhere")]), "train")
    with pytest.raises(NotAllowedError, match=r"security\.user"):
        block.check(_spec(security=Security(user="1000")), "train")


def test_an_input_of_the_supervisors_machine_is_read_only_where_the_block_allows_it(tmp_path: Path) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    allowed.mkdir()
    other.mkdir()
    (allowed / "link").symlink_to(other)
    block = Docker(allow_host_folders=[str(allowed)])
    block.check(_spec(inputs={"a": f"file://{allowed}/iris.csv", "b": "s3://bucket/iris.csv"}), "train")
    for path in (other / "iris.csv", allowed / "link" / "iris.csv", f"{allowed}-too/iris.csv"):
        with pytest.raises(NotAllowedError, match=r"its input 'a' .* allow_host_folders"):
            block.check(_spec(inputs={"a": f"file://{path}"}), "train")
    # A process reads what this machine's files are by itself.
    Process().check(_spec(inputs={"a": f"file://{other}/iris.csv"}), "train")
