"""Names that every floor knows, and that cost nothing to import."""

from __future__ import annotations

DEFAULT_WORK_POOL = "jobs"
"""Where runs are sent unless somebody says otherwise."""

WORKER_TYPE = "prefect-jobs"
"""The type of this project's worker, and of the work pools that it serves."""

PIPELINE = "pipeline"
"""The name of the flow of pipelines, and of the hidden parameter that carries one."""
