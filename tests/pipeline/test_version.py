"""What a deployment carries of a pipeline, and the version that names it."""

from __future__ import annotations

import json

import pytest

from prefect_jobs import Parameter, Pipeline, Share, Step
from prefect_jobs.deployed import DeployedPipeline
from prefect_jobs.errors import VersionError


def _pipeline(**keys: object) -> Pipeline:
    step = Step(job="train", matrix={"n": [1, 2]}, on_failure=Share(succeed_at_least=0.5), env={"A": "b"})
    return Pipeline.model_validate({"name": "p", "steps": {"a": step}, **keys})


def test_what_travels_is_what_was_deployed() -> None:
    number = Parameter(type="number", default=1.0)
    deployed = DeployedPipeline(template=_pipeline(project="x", parameters={"k": number}))
    travelled = json.loads(json.dumps(deployed.document()))
    travelled["template"]["parameters"]["k"]["default"] = 1  # As Postgres has it.
    assert DeployedPipeline.parse(travelled, deployed.version).template.document() == deployed.template.document()


def test_steps_and_matrices_keep_their_order_whatever_a_database_makes_of_it() -> None:
    steps = {name: Step(job="a", matrix={"zz": [1, 2], "y": [3, 4]}) for name in ("third", "b", "aa")}
    deployed = DeployedPipeline(template=Pipeline(name="p", steps=steps))
    travelled = json.loads(json.dumps(deployed.document(), sort_keys=True))
    there = DeployedPipeline.parse(travelled, deployed.version).template
    assert list(there.steps) == ["third", "b", "aa"]
    assert there.steps["b"].matrix is not None
    assert there.steps["b"].matrix.branches()[1] == {"zz": 1, "y": 4}


def test_another_template_is_another_version() -> None:
    one, other = DeployedPipeline(template=_pipeline()), DeployedPipeline(template=_pipeline(tags=["a"]))
    assert one.version != other.version
    assert one.version == DeployedPipeline(template=_pipeline()).version
    with pytest.raises(VersionError, match=r"template of pipeline 'p' is version .* Leave 'pipeline' out"):
        DeployedPipeline.parse(other.document(), one.version)


def test_what_is_no_pipeline_is_refused() -> None:
    with pytest.raises(VersionError, match=r"'pipeline' does not hold a template .*apply the pipeline again"):
        DeployedPipeline.parse({"template": {"name": "p"}}, "1")
    with pytest.raises(VersionError, match="does not hold a template"):
        DeployedPipeline.parse(None, "1")
