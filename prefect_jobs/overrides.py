"""What a run may change of its job's template, for itself."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Tag

from prefect_jobs.job import Environment, InfrastructureName, InputName, TimeLimit, Timeouts, Words
from prefect_jobs.model import MAPPING, PLAIN, ByKind, Model
from prefect_jobs.quantities import Cpu, Memory
from prefect_jobs.spec import Shape
from prefect_jobs.storage import Uri


class Overrides(Model):
    """What a run changes for itself; the template stays as it is. None changes nothing."""

    env: Environment | None = None
    """Environment variables, added to the job's or in place of them."""
    args: Words | None = None
    """Arguments in place of the job's."""
    command: Words | None = None
    """The command in place of the job's."""
    shape: Annotated[Annotated[str, Tag(PLAIN)] | Annotated[Shape, Tag(MAPPING)], ByKind] | None = None
    """The shape; of a mapping only the keys that are set replace the job's."""
    timeout: Annotated[Annotated[TimeLimit, Tag(PLAIN)] | Annotated[Timeouts, Tag(MAPPING)], ByKind] | None = None
    """The timeouts; of a mapping only the keys that are set replace the job's."""
    infrastructure: InfrastructureName | None = None
    """Where this run runs."""
    inputs: dict[InputName, Uri] | None = None
    """Inputs, added to the job's or in place of them."""

    def as_form(self) -> dict[str, Any]:
        """As a run form has them: each field takes one type, for not every UI draws a field of several."""
        form = self.model_dump(mode="json", exclude_unset=True)
        for name in {"args", "command"} & form.keys():
            form[name] = [str(word) for word in form[name]]
        if isinstance(self.shape, Shape):
            form["shape"] = {
                name: value.cores if isinstance(value, Cpu) else str(value) if isinstance(value, Memory) else value
                for name in form["shape"]
                for value in [getattr(self.shape, name)]
            }
        if isinstance(self.timeout, Timeouts):
            form["timeout"] = {name: value if value is None else str(value) for name, value in form["timeout"].items()}
        elif self.timeout is not None:
            form["timeout"] = str(self.timeout)
        return form
