"""Names that every floor knows, and that cost nothing to import."""

from __future__ import annotations

NAME = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
"""What jobs, pipelines, their steps and projects may be called: a pattern, at most 63 characters."""

DEFAULT_WORK_POOL = "jobs"
"""Where runs are sent unless somebody says otherwise."""

WORKER_TYPE = "prefect-jobs"
"""The type of this project's worker, and of the work pools that it serves."""

PIPELINE = "pipeline"
"""The name of the flow of pipelines, and of the hidden parameter that carries one."""
