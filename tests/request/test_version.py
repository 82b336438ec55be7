from __future__ import annotations

import json
from typing import Any

import pytest

from prefect_jobs.deployed import DeployedJob
from prefect_jobs.errors import VersionError
from prefect_jobs.job import Job

DIGEST = "0123456789abcdef" * 4
KEYS: dict[str, Any] = {
    "image": "x",
    "env": {"A": "1", "B": "2"},
    "parameters": {"size": {"type": "number", "default": 1, "maximum": 2.0}},
    "shape": {"cpu": 1},
    "timeout": 60,
}


def _deployed(pinned: str | None = None, **keys: Any) -> DeployedJob:
    return DeployedJob(template=Job.model_validate({"name": "a", **KEYS, **keys}), image=pinned)


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    return value


def test_the_order_of_keys_does_not_change_the_version() -> None:
    assert _deployed(**_reversed(KEYS)).version == _deployed().version


def test_a_whole_number_has_one_version_with_and_without_a_point() -> None:
    pointed = {"parameters": {"size": {"type": "number", "default": 1.0, "maximum": 2}}, "shape": {"cpu": 1.0}}
    assert _deployed(**pointed, timeout=60.0).version == _deployed().version


@pytest.mark.parametrize(
    "changed",
    [
        {"image": "y"},
        {"env": {"A": "1"}},
        {"env": {"A": 1, "B": "2"}},
        {"timeout": "60s"},
        {"tags": []},
        {"name": "b"},
        {"project": "p"},
        {"command": ["a", "b"]},
        {"retries": 1},
        {"schedules": [{"cron": "0 8 * * *"}]},
    ],
    ids=str,
)
def test_a_changed_template_is_another_version(changed: dict[str, Any]) -> None:
    assert _deployed(**changed).version != _deployed().version


def test_the_order_of_arguments_is_part_of_the_template() -> None:
    assert _deployed(args=["a", "b"]).version != _deployed(args=["b", "a"]).version


def test_a_changed_image_is_another_version_and_shows_in_it() -> None:
    plain, pinned = _deployed(), _deployed(pinned=f"x@sha256:{DIGEST}")
    assert pinned.version.endswith("-0123456789ab")
    assert pinned.version.partition("-")[0] != plain.version
    assert _deployed(pinned=f"sha256:{DIGEST[::-1]}").version != pinned.version


def test_the_version_is_the_same_in_every_process_and_release() -> None:
    # Written down once: whoever changes the hash makes every deployment a new version.
    assert _deployed().version == "1bd272b09d022fd3"


def test_a_deployed_job_survives_the_journey_through_a_database() -> None:
    deployed = _deployed(pinned=f"sha256:{DIGEST}", schedules=[{"cron": "0 8 * * *", "parameters": {"size": 1.5}}])
    # Postgres orders keys by length and writes 60.0 for 60.
    travelled = json.loads(json.dumps(_reversed(deployed.document())).replace(": 60", ": 60.0"))
    parsed = DeployedJob.parse(travelled, deployed.version)
    assert parsed.version == deployed.version
    assert parsed.template == deployed.template


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("template", "image"), "evil"),
        (("template", "env", "A"), "evil"),
        (("template", "security"), {"privileged": True}),
        (("image",), "sha256:" + "f" * 64),
    ],
    ids=str,
)
def test_a_template_that_was_tampered_with_is_refused(path: tuple[str, ...], value: Any) -> None:
    deployed = _deployed(pinned=f"sha256:{DIGEST}")
    document: Any = json.loads(json.dumps(deployed.document()))
    *above, last = path
    place = document
    for part in above:
        place = place[part]
    place[last] = value
    with pytest.raises(VersionError, match=rf"job 'a' is version .* gave it version {deployed.version}: a run cannot"):
        DeployedJob.parse(document, deployed.version)


@pytest.mark.parametrize("version", [None, "", "1"])
def test_a_run_without_the_right_version_is_refused(version: str | None) -> None:
    with pytest.raises(VersionError, match="a run cannot replace the template"):
        DeployedJob.parse(_deployed().document(), version)


@pytest.mark.parametrize(
    "document", [None, {}, "x", {"template": {"name": "a"}}, {"template": {}, "image": 3}], ids=str
)
def test_what_is_no_template_is_refused_with_advice(document: Any) -> None:
    with pytest.raises(VersionError, match=r"does not hold a template .*leave 'job' out of the run's parameters"):
        DeployedJob.parse(document, "1")
