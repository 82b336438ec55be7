"""What is staged is in a container's folders when it starts, and what it leaves there can be had when it has ended."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from bench import Bench

from prefect_jobs.blocks.files import Folder, Left
from prefect_jobs.errors import InfrastructureError

MIB = 1 << 20


async def left_by(bench: Bench, spool: Path, script: str, folder: Folder = "output", only: str | None = None) -> Left:
    """What a script leaves, started in the folder that is asked for."""
    container = await bench.launch(bench.sh(f'cd "$JOB_{folder.upper()}_DIR"; {script}'))
    ended = await bench.end_of(container)
    assert ended.outcome.exit_code == 0, ended.texts
    return await container.left(folder, spool, only)


def contents(left: Left) -> dict[str, str]:
    return {name: path.read_text() for name, path in left.files.items()}


async def test_inputs_and_a_checkpoint_are_there_when_it_starts(bench: Bench, tmp_path: Path) -> None:
    inputs, checkpoint = tmp_path / "inputs", tmp_path / "checkpoint"
    (inputs / "prices" / "2026 ä").mkdir(parents=True)
    (inputs / "prices" / "2026 ä" / "a b.csv").write_text("1,2\n")
    (inputs / "iris").write_text("iris\n")
    checkpoint.mkdir()
    (checkpoint / "step").write_text("7\n")
    script = 'cd "$JOB_INPUT_DIR"; find . -type f | sort; cat iris; cat "$JOB_CHECKPOINT_DIR/step"'
    script += '; echo more >> iris; echo 8 >> "$JOB_CHECKPOINT_DIR/step" && touch prices/new'
    container = await bench.launch(bench.sh(script), staged={"input": inputs, "checkpoint": checkpoint})
    ended = await bench.end_of(container)
    assert ended.texts == ["./iris", "./prices/2026 ä/a b.csv", "iris", "7"]
    assert ended.outcome.exit_code == 0
    assert contents(await container.left("checkpoint", tmp_path / "spool")) == {"step": "7\n8\n"}


async def test_what_it_leaves_can_be_had_by_its_names(bench: Bench, tmp_path: Path) -> None:
    script = "mkdir -p a/b empty; echo 1 > a/b/one; echo 'two' > 'a/t wo é'; : > nothing; chmod 600 nothing"
    left = await left_by(bench, tmp_path / "spool", script)
    assert contents(left) == {"a/b/one": "1\n", "a/t wo é": "two\n", "nothing": ""}
    assert left.skipped == {}


async def test_one_file_can_be_asked_for(bench: Bench, tmp_path: Path) -> None:
    script = "echo '{}' > result.json; echo x > other"
    assert contents(await left_by(bench, tmp_path / "spool", script, only="result.json")) == {"result.json": "{}\n"}
    assert await left_by(bench, tmp_path / "spool", "true", only="result.json") == Left()


async def test_a_link_stands_for_the_file_and_nothing_outside_is_taken(bench: Bench, tmp_path: Path) -> None:
    script = """
        echo best > model-3; mkdir runs; echo deep > runs/deep
        ln -s model-3 latest; ln -s ../model-3 runs/up; ln model-3 hard; ln -s latest twice
        ln -s "$PWD/model-3" whole
        ln -s /etc/passwd stolen; ln -s ../../../../../etc/passwd climbing; ln -s /etc folder
        ln -s round round; ln -s nowhere dangling; ln -s runs inside; mkfifo pipe
    """
    left = await left_by(bench, tmp_path / "spool", script)
    taken = contents(left)
    assert {name for name, text in taken.items() if text == "best\n"} == {
        *("model-3", "latest", "runs/up", "hard", "twice", "whole")
    }
    assert taken.keys() - {"model-3", "latest", "runs/up", "hard", "twice", "whole"} == {"runs/deep"}
    assert left.skipped == {
        "stolen": "it is a link out of the folder",
        "climbing": "it is a link out of the folder",
        "folder": "it is a link out of the folder",
        "round": "it is a link that leads back to itself",
        "dangling": "it is a link to no file",
        "inside": "it is a link to a folder",
        "pipe": "it is neither a file nor a folder",
    }


async def test_a_folder_that_is_a_link_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    script = 'cd ..; rm -r "$JOB_OUTPUT_DIR"; ln -s /etc "$JOB_OUTPUT_DIR"'
    assert (await left_by(bench, tmp_path / "spool", script)).files == {}
    assert (await left_by(bench, tmp_path / "spool", script, only="passwd")).files == {}


async def test_names_that_no_store_takes_are_skipped_with_the_reason(bench: Bench, tmp_path: Path) -> None:
    script = r"""touch -- "$(printf 'a\nb')" "$(printf 'not\377utf8')" '..hidden' ' space ' 'back\slash' '-rf'"""
    left = await left_by(bench, tmp_path / "spool", script)
    assert left.files.keys() == {"..hidden", " space ", "back\\slash", "-rf"}
    assert left.skipped == {"a\\nb": "its name has control characters", "not\\xffutf8": "its name is not UTF-8"}


async def test_a_folder_that_is_gone_is_empty(bench: Bench, tmp_path: Path) -> None:
    assert await left_by(bench, tmp_path / "spool", 'cd ..; rm -r "$JOB_OUTPUT_DIR"') == Left()


async def test_a_container_that_is_gone_has_not_left_nothing(bench: Bench, tmp_path: Path) -> None:
    container = await bench.launch(bench.sh("echo x > $JOB_OUTPUT_DIR/x"))
    await bench.end_of(container)
    await container.remove()
    with pytest.raises(InfrastructureError, match=r"output.* is gone, so somebody removed it after .* start the run"):
        await container.left("output", tmp_path / "spool")
    # How it ended stands without its result.
    assert await container.left("output", tmp_path / "spool", only="result.json") == Left()


def test_what_cannot_be_listed_or_read_is_named() -> None:
    """As a user to whom modes matter: the tests may run as root."""
    nobody = 65534 if os.getuid() == 0 else os.getuid()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "output"
        for name in ("open", "closed/below", "names only", "names only/below"):
            (folder / name).mkdir(parents=True)
            (folder / name / "file").write_text("x")
        for path in (Path(place), *Path(place).rglob("*")):
            os.chown(path, nobody, -1)
        (folder / "closed").chmod(0)
        (folder / "names only").chmod(0o444)
        program = (
            "import json, os, sys; from pathlib import Path; from prefect_jobs.blocks.files import left_in; "
            "os.setuid(int(sys.argv[1])); folder = Path(sys.argv[2]); left = left_in(folder); "
            "alone = left_in(folder / 'names only', 'file'); folder.chmod(0); none = left_in(folder); "
            "print(json.dumps([[*left.files], left.skipped, alone.skipped, none.skipped]))"
        )
        words = [sys.executable, "-c", program, str(nobody), str(folder)]
        done = subprocess.run(words, capture_output=True, text=True)
        folder.chmod(0o700)
        for path in folder.iterdir():
            path.chmod(0o700)
    unlisted = "it is a folder that cannot be listed: Permission denied"
    unread = "it cannot be read: Permission denied"
    assert json.loads(done.stdout or done.stderr) == [
        ["open/file"],
        {"closed": unlisted, "names only/file": unread, "names only/below": unlisted},
        {"file": unread},
        {".": unlisted},
    ]


async def test_large_files_go_in_and_out_and_take_no_memory(bench: Bench, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    with (inputs / "large").open("wb") as file:
        for number in range(128):
            file.write(bytes([number % 251]) * MIB)
    expected = hashlib.sha256((inputs / "large").read_bytes()).hexdigest()
    process, before = psutil.Process(), psutil.Process().memory_info().rss
    script = 'sha256sum < "$JOB_INPUT_DIR/large"; cp "$JOB_INPUT_DIR/large" "$JOB_OUTPUT_DIR/copy"'
    container = await bench.launch(bench.sh(script), staged={"input": inputs})
    ended = await bench.end_of(container)
    left = await container.left("output", tmp_path / "spool")
    assert process.memory_info().rss - before < 40 * MIB
    assert ended.texts == [f"{expected}  -"]
    with left.files["copy"].open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == expected
