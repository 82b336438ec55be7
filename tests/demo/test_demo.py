"""The demo finds the best model without any preparation, and leaves nothing behind but what the UI shows."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from pathlib import Path

import pytest
from demos import Demo, Start

REPORT = ("precision    recall  f1-score", "setosa", "versicolor", "virginica", "weighted avg")


def _runs(demo: Demo) -> list[str]:
    """The states of all runs that the home's database has."""
    with sqlite3.connect(demo.home / "prefect.db") as database:
        return [name for (name,) in database.execute("select state_name from flow_run")]


def test_the_best_of_all_models_is_trained_and_nothing_is_left_running(start_demo: Start) -> None:
    # A person's own Prefect: neither asked nor told anything.
    demo = start_demo(PREFECT_API_URL="http://127.0.0.1:1/api", PREFECT_API_KEY="not-for-the-demo")
    output = demo.output()
    assert demo.process.returncode == 0, output
    assert demo.running() == {}
    assert all(words in output for words in REPORT), output
    table = [line.split() for line in output[output.index("all runs ---") :].splitlines()]
    assert [row[:2] for row in table if row and row[0] in ("split", "fit", "final")] == [
        ["split", "0"], *(["fit", str(index)] for index in range(9)), ["final", "0"]
    ]  # fmt: skip
    (best,) = (row for row in table if "best" in row and row[0] == "fit")
    found = re.search(r"The best model: (\w+) with ([\d.]+), accuracy ([01]\.\d{4}) in the test", output)
    assert found is not None
    assert (f"MODEL_CLASS={found[1]},", f"STRENGTH={found[2]}") == (best[2], best[3])
    assert float(found[3]) > 0.9
    # What the search left is where the demo says, and whole.
    place = Path(re.search(r"model and report: file://(\S+)", output)[1])  # type: ignore[index]
    assert {file.name for file in place.iterdir()} == {"model.joblib", "report.md", "result.json"}
    assert _runs(demo) == ["Completed"] * 12
    assert f"export PREFECT_HOME={demo.home}" in output
    assert "unset PREFECT_API_KEY PREFECT_API_URL" in output
    assert "run pipeline/search -p where=docker --watch" in output
    assert "\x1b" not in output


@pytest.mark.parametrize(("number", "during"), [(signal.SIGINT, "fit.py"), (signal.SIGTERM, "prefect worker")])
def test_a_signal_stops_everything_that_it_started(start_demo: Start, number: signal.Signals, during: str) -> None:
    demo = start_demo()
    demo.wait_for(during)
    demo.process.send_signal(number)
    output = demo.output(60)
    assert demo.process.returncode == 128 + number, output
    assert demo.running() == {}
    ended = {"Cancelled", "Crashed", "Completed"}  # Prefect may have called it crashed before the demo cancelled it.
    assert set(_runs(demo)) <= ended
    assert set(_runs(demo)) != {"Completed"}


def test_a_worker_that_dies_ends_the_demo_with_its_last_lines(start_demo: Start) -> None:
    demo = start_demo()
    demo.wait_for("split.py")
    for pid, command in demo.running().items():
        if "prefect worker" in command:
            os.kill(pid, signal.SIGKILL)
    output = demo.output(60)
    assert demo.process.returncode == 1, output
    assert "the worker ended by itself, with exit code -9" in output
    assert "Beginning flow run" in output
    assert demo.running() == {}


def test_a_second_demo_in_the_same_home_is_refused(start_demo: Start) -> None:
    first = start_demo()
    first.wait_for("prefect server")
    second = start_demo()
    assert f"another demo is running in {second.home}" in second.output(30)
    assert second.process.returncode == 1


def test_without_network_and_environment_it_says_what_it_needs(start_demo: Start, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    nothing = str(tmp_path / "index")
    demo = start_demo(XDG_CACHE_HOME=cache, UV_OFFLINE="1", UV_NO_INDEX="1", PIP_NO_INDEX="1", PIP_FIND_LINKS=nothing)
    output = demo.output(60)
    assert demo.process.returncode == 1
    assert "its Python environment could not be made" in output
    assert "connect this machine to a package index" in output
    assert demo.running() == {}
    assert list(Path(cache, "prefect-jobs").iterdir()) == []
