"""What README and docs show is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prefect_jobs import document

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def snippets(language: str) -> list[object]:
    return [
        pytest.param(code, id=f"{page.name}-{number}")
        for page in PAGES
        for number, code in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL), 1)
    ]


@pytest.mark.parametrize("code", snippets("yaml"))
def test_every_document_that_is_shown_is_read(code: str) -> None:
    assert document.loads(code)


@pytest.mark.parametrize("code", snippets("python"))
def test_every_python_snippet_runs(code: str, prefect_api: str) -> None:
    exec(compile(code, "snippet", "exec"), {})


def test_every_link_to_a_file_leads_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_every_command_is_documented() -> None:
    from prefect_jobs.deployments.cli import app

    page = (PROJECT / "docs/running.md").read_text()
    assert [name for name in app if not name.startswith("-") and f"`prefect-jobs {name}" not in page] == []
