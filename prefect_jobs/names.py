"""Names that every floor knows, and that cost nothing to import."""

from __future__ import annotations

DEFAULT_WORK_POOL = "jobs"
"""Where runs are sent unless somebody says otherwise."""
