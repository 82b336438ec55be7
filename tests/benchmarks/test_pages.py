"""What is shown of raw figures: the table, the goals, the chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import chart, table
from benchmarks.figures import Batch, Conditions, Memory, PeerFigures, Requests, Results, Round, Usage
from benchmarks.goals import goals

MIB = 1 << 20
SVG = "{http://www.w3.org/2000/svg}"


def batch(seconds: float, cpu: float, containers: float | None = None) -> Batch:
    used = Usage(supervisor=cpu, server=2.0, postgres=1.0, containers=containers)
    return Batch(runs=40, at_once=8, seconds=seconds, to_start=(1.0, 2.0, 9.0), used=used)


def peer(name: str, seconds: list[float], cpu: float, held: int, **fields: Any) -> PeerFigures:
    rounds = tuple(
        Round(singles=(0.3, 0.5), batch=batch(each, cpu, fields.get("containers_cpu")), full=fields.get("full"))
        for each in seconds
    )
    few = Memory(at_once=8, supervisor_idle=100 * MIB, supervisor=held, server_idle=MIB, server=2 * MIB)
    many = few.model_copy(update={"at_once": 200, "supervisor": held + 100 * MIB})
    requests = Requests(runs=10, requests=165, by_route={"GET /api": 165}) if name == "ours" else None
    notes = tuple(fields.get("notes", ()))
    return PeerFigures(
        name=name, title=f"The {name}", rounds=rounds, memory=(few, many), requests=requests, notes=notes
    )


@pytest.fixture
def results() -> Results:
    conditions = Conditions(
        date="2026-11-20", machine="a machine", cores=2, memory=8 << 30, load_average=(0.1, 0.2, 0.3),
        versions={"Prefect": "3.8.8"},
    )  # fmt: skip
    full = batch(30, 8)
    return Results(
        conditions=conditions,
        peers=(
            peer("bare", [4.0, 6.0, 5.0], 1, 30 * MIB),
            peer("ours", [8.0, 6.0, 100.0], 4, 110 * MIB, full=full),
            peer("airflow", [12.0, 12.0, 12.0], 8, 400 * MIB, full=batch(60, 20)),
            peer("docker", [60.0, 60.0, 60.0], 10, 200 * MIB, containers_cpu=60.0, notes=["it is slow"]),
        ),
    )


def cells(text: str, row: str) -> list[str]:
    [line] = [line for line in text.splitlines() if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_table_shows_medians_over_the_rounds_and_shares_of_one_run(results: Results) -> None:
    text = table.markdown(results)
    assert cells(text, "Runs a minute") == ["480 (40 at 8)", "300 (40 at 8)", "200 (40 at 8)", "40 (40 at 8)"]
    assert cells(text, "Seconds from creation to container start, unloaded, median") == ["0.40"] * 4
    assert cells(text, "Requests to Prefect's API for one run") == ["–", "16.5", "–", "–"]
    assert cells(text, "CPU seconds of the server for one run") == ["0.05"] * 4
    # What runs in the containers is the supervisor's.
    assert cells(text, "CPU seconds of the supervisor for one run") == ["0.03", "0.10", "0.20", "1.75"]
    assert cells(text, "MiB of the supervisor, many sleeping containers")[1] == "210 (200 at once)"
    assert cells(text, "MiB that one of many adds")[1] == "0.55"
    assert "2 cores (a machine), 8 GiB, load average 0.10 0.20 0.30 at the start. Prefect 3.8.8." in text
    assert "- The docker: it is slow." in text


def test_what_was_not_measured_is_said_so(results: Results) -> None:
    assert cells(table.markdown(results), "Runs a minute at full load") == [
        "not measured", "80 (40 at 8)", "40 (40 at 8)", "not measured",
    ]  # fmt: skip


def test_memory_that_could_not_be_measured_is_said_so_and_no_goal_is_judged_by_it(results: Results) -> None:
    peers = tuple(peer.model_copy(update={"memory": ()}) for peer in results.peers)
    without = results.model_copy(update={"peers": peers})
    assert cells(table.markdown(without), "MiB of the supervisor, idle") == ["not measured"] * 4
    assert not [goal for goal in goals(without) if "MiB" in goal.wanted or "memory" in goal.wanted]
    assert chart.svg(without).count("not measured") == 4


def test_every_goal_says_what_was_seen_and_whether_it_is_reached(results: Results) -> None:
    assert {goal.wanted: (goal.seen, goal.reached) for goal in goals(results)} == {
        "more throughput than Airflow": ("300 and 200 runs a minute", True),
        "the same at 8 at once": ("80 and 40 runs a minute", True),
        "at least 60 % of the throughput of the Docker API alone": ("62%", True),
        "under 0.7 s from creation to container start when unloaded": ("0.40 s", True),
        "each of many sleeping runs at no more than 1 MiB above the base": ("0.55 MiB at 200 at once", True),
        "the supervisor below a quarter of Airflow's memory": (
            "0.28 of it at 8 at once, both without their servers",
            False,
        ),
        "at most 1/20 of the Docker worker's CPU for one run": ("1/18 of it", False),
    }
    text = table.markdown(results)
    assert "- ✓ more throughput than Airflow: 300 and 200 runs a minute" in text
    assert "- ✗ at most 1/20 of the Docker worker's CPU for one run: 1/18 of it" in text


def test_there_is_no_goal_without_those_it_is_about(results: Results) -> None:
    alone = results.model_copy(update={"peers": results.peers[:2]})
    assert not [goal for goal in goals(alone) if "Airflow" in goal.wanted or "worker" in goal.wanted]
    assert goals(results.model_copy(update={"peers": results.peers[2:]})) == []


def test_the_table_goes_between_its_marks_and_nowhere_else(results: Results, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    for _ in range(2):
        table.write(page, results)
        assert page.read_text() == f"before\n{table.BEGIN}\n\n{table.markdown(results)}\n\n{table.END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match=r"page\.md lacks the lines"):
        table.write(page, results)
    assert page.read_text() == "no marks"


def test_the_chart_has_a_bar_of_the_right_length_for_each_peer_in_each_panel(results: Results, tmp_path: Path) -> None:
    chart.write(tmp_path / "chart.svg", results)
    root = ElementTree.parse(tmp_path / "chart.svg").getroot()
    bars = root.findall(f"{SVG}rect")
    assert [bar.get("class") for bar in bars] == ["other", "ours", "other", "other"] * 4
    throughput = [float(str(bar.get("width"))) for bar in bars[:4]]
    assert [round(width / throughput[0], 2) for width in throughput] == [1.0, 0.62, 0.42, 0.08]
    texts = [text.text for text in root.findall(f"{SVG}text")]
    assert texts[:3] == ["No-op containers a minute (more is better)", "The bare", "480"]
    assert "prefers-color-scheme: dark" in str(root.findtext(f"{SVG}style"))
    height = float(str(root.get("height")))
    assert all(float(str(bar.get("y"))) + float(str(bar.get("height"))) <= height for bar in bars)


def test_figures_are_read_back_as_they_were_written(results: Results) -> None:
    assert Results.model_validate_json(results.model_dump_json()) == results
