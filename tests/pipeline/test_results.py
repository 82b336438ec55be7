"""What a step leaves reaches the steps that need it: values, the best run, a list to work on, and files."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pipelines import There
from reach import lines

from prefect_jobs import JobRun, Pipeline
from prefect_jobs.blocks.object_store import ObjectStore
from prefect_jobs.errors import NotFoundError

Run = Callable[..., Awaitable[Any]]
Deploy = Callable[[str], Awaitable[Pipeline]]


@pytest.fixture
async def store(server: Any, mark: str, tmp_path: Path) -> Path:
    """The folder of the store ``state-MARK``."""
    await ObjectStore(url=f"file://{tmp_path}").save(f"state-{mark}")
    return tmp_path


# Its score is best where n is 3; n = 7 leaves none, and n = 9 no result at all.
SEARCH = """
jobs:
  fit-MARK:
    store: state-MARK
    command: [sh, -c, 'cd $JOB_OUTPUT_DIR; echo "model $kind $n" > model.txt; case $n in
      9) ;; 7) echo "{}" > result.json ;;
      *) echo "{\\"scores\\": {\\"test\\": $((10 - (n - 3) * (n - 3)))}, \\"kind\\": \\"$kind\\"}" > result.json;;
      esac']
    parameters: {kind: {default: svc}, n: {type: integer, default: 1}}
  final-MARK:
    store: state-MARK
    command: [sh, -c, 'echo "$kind $n $metric $FROM"; cd $JOB_INPUT_DIR; find . -type f | sort; cat fit/results.json;
      cat $FROM/model.txt']
    parameters: {kind: {}, n: {type: integer}, metric: {type: number}}
pipelines:
  p-MARK:
    steps:
      fit: {job: fit-MARK, matrix: {kind: [svc, forest], n: [1, 3, 7, 9]}}
      final:
        job: final-MARK
        needs: [fit]
        select: {from: fit, metric: scores.test}
        parameters: {kind: "{{ best.parameters.kind }}", n: "{{ best.parameters.n }}", metric: "{{ best.metric }}"}
        env: {FROM: "fit/{{ best.index }}", OUT: "{{ best.outputs }}"}
"""


async def test_the_final_step_has_the_best_parameters_all_results_and_all_outputs(run: Run, store: Path) -> None:
    there: There = await run(SEARCH)
    assert (there.state, there.message) == ("Completed", "fit succeeded, final succeeded")
    (final,) = await there.of("final")
    said = await lines(JobRun(final))
    # svc and forest are equally good: the first one is taken.
    assert said[0] == "svc 3 10 fit/1"
    assert said[-1] == "model svc 3"
    files = [line for line in said if line.startswith("./")]
    assert "./fit/results.json" in files
    assert [f"./fit/{index}/model.txt" for index in range(8)] == [line for line in files if "model" in line]
    document = json.loads("\n".join(said[1 + len(files) : -1]))
    assert {key: document[key] for key in ("step", "matrix", "best")} == {"step": "fit", "matrix": True, "best": 1}
    fit = await there.of("fit")
    assert [branch["run_id"] for branch in document["branches"]] == [str(child.id) for child in fit]
    assert document["branches"][5] == {
        "index": 5,
        "parameters": {"kind": "forest", "n": 3},
        "outcome": "succeeded",
        "run_id": str(fit[5].id),
        "run_name": f"{there.run.name}-fit-5",
        "result": {"scores": {"test": 10}, "kind": "forest"},
        "outputs": f"file://{store}/{fit[5].parameters['job']['template']['name']}/{fit[5].id}/output",
    }
    assert document["branches"][3]["result"] is None
    warnings = [words for words in await there.said() if words.startswith("final: run")]
    assert warnings[:2] == [
        "final: run 2 of fit has no 'scores.test' in its result.json",
        "final: run 3 of fit left no result: no result.json, or none that could be read; its log says why",
    ]
    assert any(
        f"the best of fit is {there.run.name}-fit-1 (kind=svc, n=3): scores.test = 10" in w for w in await there.said()
    )


async def test_without_any_metric_the_step_fails_and_says_what_is_there(run: Run, store: Path) -> None:
    there = await run(SEARCH.replace("n: [1, 3, 7, 9]", "n: [7, 9]"))
    assert there.state == "Failed"
    assert there.message == (
        "step 'final': select: no run of step 'fit' has a number at 'scores.test': "
        "run 0 has no 'scores.test' in its result.json; "
        "run 1 left no result: no result.json, or none that could be read; its log says why; "
        "run 2 has no 'scores.test' in its result.json; and 1 more"
    )


async def test_what_runs_for_a_step_that_could_not_begin_finds_that_it_left_nothing(run: Run, store: Path) -> None:
    say = "{job: say-MARK, needs: [final]"
    there = await run(
        SEARCH.replace("n: [1, 3, 7, 9]", "n: [7, 9]").replace(
            "\npipelines:",
            "\n  say-MARK: {store: state-MARK, command: [sh, -c, 'cat $JOB_INPUT_DIR/final/results.json']}\npipelines:",
        )
        + f"      alarm: {say}, if: {{final: failed}}}}\n      clean: {say}, always: true}}\n"
    )
    assert there.state == "Failed"
    for step in ("alarm", "clean"):
        (child,) = await there.of(step)
        assert child.state_name == "Completed", child.state
        left = json.loads("\n".join(await lines(JobRun(child))))
        assert left == {"step": "final", "matrix": False, "branches": [], "best": None}


LIST = """
jobs:
  list-MARK: {command: [sh, -c, 'echo "$RESULT" > $JOB_OUTPUT_DIR/result.json'], env: {RESULT: 'WHAT'}}
  say-MARK: {command: [sh, -c, 'echo "$name $n $JOB_INDEX/$JOB_COUNT"'],
    parameters: {name: {default: x}, n: {type: integer, default: 0}}}
pipelines:
  p-MARK:
    steps:
      list: {job: list-MARK}
      say: {job: say-MARK, needs: [list], each: {step: list, key: a.files, as: name}, parameters: {n: 5}}
      first: {job: say-MARK, needs: [list], parameters: {name: "{{ steps.list.result.a.files.0 }}!"}}
      pairs: {job: say-MARK, needs: [list], each: {step: list, key: pairs}}
"""


async def test_a_step_runs_for_each_item_of_a_list_that_another_left(run: Run) -> None:
    what = {"a": {"files": ["one", "two words", "ü"]}, "pairs": [{"name": "p", "n": 1}, {"n": 2}]}
    there = await run(LIST.replace("WHAT", json.dumps(what, ensure_ascii=False)))
    assert there.state == "Completed", there.message
    said = {step: [(await lines(JobRun(child)))[0] for child in await there.of(step)] for step in ("say", "pairs")}
    assert said == {"say": ["one 5 0/3", "two words 5 1/3", "ü 5 2/3"], "pairs": ["p 1 0/2", "x 2 1/2"]}
    assert await lines(JobRun((await there.of("first"))[0])) == ["one! 0 0/1"]


async def test_a_list_that_is_none_is_said(run: Run) -> None:
    there = await run(LIST.replace("WHAT", '{"a": {"files": "one"}, "pairs": ["two"]}'))
    assert there.state == "Failed"
    assert there.message.splitlines() == [
        "step 'say': each: the result of step 'list' at 'a.files' is one, and no list",
        "step 'first': {{ steps.list.result.a.files.0 }}: step 'list' has no 'a.files.0' in its result.json",
        "step 'pairs': each: the result of step 'list' at 'pairs': item 0 is two, and no mapping of parameters; "
        "or say as: NAME",
    ]


async def test_an_item_that_the_job_does_not_take_is_said_before_anything_runs(run: Run) -> None:
    there = await run(LIST.replace("WHAT", '{"a": {"files": []}, "pairs": [{"n": 1}, {"n": "two"}]}'))
    assert there.message.splitlines()[-1].startswith("step 'pairs': run 1 of step 'pairs' cannot begin: parameter 'n'")
    assert await there.of("pairs") == []
    # Nothing to do is done.
    assert "say: 0 of 0 done" in await there.said()


async def test_a_store_that_is_not_there_is_said_before_anything_is_deployed(run: Run) -> None:
    with pytest.raises(NotFoundError, match="there is no object store block 'state-"):
        await run(SEARCH)


async def test_a_store_that_was_removed_is_said(deploy: Deploy, store: Path, mark: str) -> None:
    pipeline = await deploy(SEARCH)
    await ObjectStore.adelete(f"state-{mark}")
    there = await There(await pipeline.run()).ended()
    assert there.state == "Failed"
    assert "there is no object store block 'state-" in there.message


# -- the summary


async def test_the_summary_shows_every_run_and_the_graph(run: Run, store: Path) -> None:
    there = await run(SEARCH)
    table, picture = await there.artifacts()
    rows = json.loads(table.data) if isinstance(table.data, str) else table.data
    assert [(row["step"], row["index"], row["parameters"]) for row in rows][:2] == [
        ("fit", 0, "kind=svc, n=1"),
        ("fit", 1, "kind=svc, n=3"),
    ]
    assert len(rows) == 9
    assert [row["metric"] for row in rows] == [6, 10, None, None, 6, 10, None, None, None]
    assert [row["index"] for row in rows if row["best"]] == [1]
    assert {row["outcome"] for row in rows} == {"succeeded"}
    assert all(row["seconds"] >= 0 for row in rows)
    fit = await there.of("fit")
    assert rows[1]["link"].endswith(f"/runs/flow-run/{fit[1].id}")
    text = str(picture.data)
    assert text.startswith("```mermaid\nflowchart LR\n")
    assert 's0["fit<br/>8 of 8 succeeded"]:::succeeded' in text
    assert "s0 --> s1" in text
    assert f"- the best of fit: [{fit[1].name}]({rows[1]['link']}) (kind=svc, n=3), scores.test = 10" in text
