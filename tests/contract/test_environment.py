from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from bench import Bench

from prefect_jobs.spec import Identity


def _names(texts: list[str]) -> dict[str, str]:
    return dict(text.split("=", 1) for text in texts if "=" in text)


async def test_a_container_knows_who_it_is(bench: Bench) -> None:
    run_id = uuid4()
    identity = bench.identity(
        run_id, job="train", version="abc-123", run_name="tidy-otter", attempt=2, index=3, count=5
    )
    env = _names((await bench.run(bench.spec("env"), identity)).texts)
    assert {name: env[name] for name in identity.environment} == {
        "JOB_NAME": "train",
        "JOB_VERSION": "abc-123",
        "JOB_RUN_ID": str(run_id),
        "JOB_RUN_NAME": "tidy-otter",
        "JOB_ATTEMPT": "2",
        "JOB_INDEX": "3",
        "JOB_COUNT": "5",
    }


async def test_the_environment_of_the_job_reaches_the_container_as_it_is(bench: Bench) -> None:
    values = {
        "PLAIN": "a",
        "BLANKS": " a  b ",
        "EMPTY": "",
        "QUOTES": "'\"`$(id)\\",
        "EQUALS": "a=b=c",
        "_INTERNAL": "ü😀",
    }
    env = _names((await bench.run(bench.spec("env", env=values))).texts)
    assert {name: env.get(name) for name in values} == values


async def test_a_value_of_several_lines_reaches_the_container_whole(bench: Bench) -> None:
    ended = await bench.run(bench.sh('printf "%s" "$TEXT"', env={"TEXT": "a\n\nb\n"}))
    assert ended.texts == ["a", "", "b"]


async def test_secrets_are_environment_variables_too(bench: Bench) -> None:
    ended = await bench.run(bench.sh("echo $TOKEN $OTHER"), secrets={"TOKEN": "s3cr3t", "OTHER": "a b"})
    assert ended.texts == ["s3cr3t a b"]


async def test_nobody_sets_the_names_of_the_contract(bench: Bench) -> None:
    forged = {"JOB_NAME": "forged", "JOB_OUTPUT_DIR": "/forged"}
    ended = await bench.run(bench.sh("echo $JOB_NAME; echo $JOB_OUTPUT_DIR", env=forged), secrets=forged)
    assert ended.texts[0] == "bench"
    assert ended.texts[1] != "/forged"


async def test_what_the_supervisor_has_in_its_environment_is_not_handed_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    env = _names((await bench.run(bench.spec("env"))).texts)
    assert [name for name in env if name.startswith(("PREFECT_", "AWS_"))] == []


async def test_no_word_of_command_or_args_is_read_by_a_shell(bench: Bench) -> None:
    words = ["a'; echo foo", '"', "$HOME", "`id`", "a  b", "", "-n", "ü😀", "*", "a\nb", "{{ x }}", "\\n"]
    script = 'for word; do printf "<%s>\\n" "$word"; done'
    ended = await bench.run(bench.spec("sh", "-c", script, "sh", *words, args=words))
    assert "\n".join(ended.texts) == "\n".join(f"<{word}>" for word in [*words, *words])


async def test_args_follow_the_command(bench: Bench) -> None:
    ended = await bench.run(bench.spec("echo", "a", args=["b", "c"]))
    assert ended.texts == ["a b c"]


async def test_standard_input_is_empty(bench: Bench) -> None:
    assert (await bench.run(bench.sh("cat; echo end"))).texts == ["end"]


async def test_the_folders_of_the_contract_exist_and_can_be_written(bench: Bench) -> None:
    names = ("JOB_INPUT_DIR", "JOB_OUTPUT_DIR", "JOB_CHECKPOINT_DIR")
    script = "; ".join(f'echo {name} > "${name}/file" && cat "${name}/file"' for name in names)
    assert (await bench.run(bench.sh(script))).texts == list(names)


async def test_the_folders_of_one_attempt_are_empty_and_apart(bench: Bench) -> None:
    script = 'ls "$JOB_INPUT_DIR" "$JOB_OUTPUT_DIR" "$JOB_CHECKPOINT_DIR" | grep -v : | grep .; echo end; '
    script += 'touch "$JOB_OUTPUT_DIR/out" "$JOB_INPUT_DIR/in"'
    run_id = uuid4()
    for attempt in (1, 2):
        ended = await bench.run(bench.sh(script), bench.identity(run_id, attempt=attempt))
        assert ended.texts == ["end"]
        assert ended.outcome.succeeded


async def test_the_checkpoint_folder_is_kept_from_attempt_to_attempt_and_from_run_to_run_not(bench: Bench) -> None:
    script = (
        'cat "$JOB_CHECKPOINT_DIR/step" 2>/dev/null || echo nothing; echo $JOB_ATTEMPT > "$JOB_CHECKPOINT_DIR/step"'
    )
    run_id = uuid4()

    async def said(identity: Identity) -> str:
        container = await bench.launch(bench.sh(script), identity)
        ended = await bench.end_of(container)
        await container.remove()
        return ended.texts[-1]

    assert await said(bench.identity(run_id, attempt=1)) == "nothing"
    assert await said(bench.identity(run_id, attempt=2)) == "1"
    assert await said(bench.identity(run_id, attempt=3)) == "2"
    assert await said(bench.identity()) == "nothing"
    await bench.engine.release(run_id)
    assert await said(bench.identity(run_id, attempt=4)) == "nothing"


async def test_the_working_directory_can_be_written(bench: Bench) -> None:
    assert (await bench.run(bench.sh("echo here > file && cat file"))).texts == ["here"]


async def test_this_project_is_not_inside(bench: Bench) -> None:
    env = _names((await bench.run(bench.spec("env"))).texts)
    assert not {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"} & env.keys()
    assert str(Path(__file__).parents[2]) not in env.get("PWD", "")
