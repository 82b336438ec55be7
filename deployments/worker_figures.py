"""What a worker counts, in Prometheus' format: Prefect's own metrics server of a client serves it where it is on."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ACTIVE = Gauge("prefect_jobs_runs_active", "Runs that are looked after now")
STARTED = Counter("prefect_jobs_runs_started_total", "Runs that were begun", ["how"])
ENDED = Counter("prefect_jobs_runs_ended_total", "Runs that ended, by the name of their last state", ["state"])
SECONDS_TO_START = Histogram(
    "prefect_jobs_seconds_to_start",
    "Seconds from the time for which a run was scheduled until its flow begins",
    buckets=(0.1, 0.2, 0.3, 0.5, 0.7, 1, 2, 5, 10, 30, 60, 300),
)
API_REQUESTS = Counter("prefect_jobs_api_requests_total", "Requests to Prefect's API on behalf of runs")
API_ERRORS = Counter("prefect_jobs_api_errors_total", "Requests that Prefect's API could not answer")
LOOP_LAG = Gauge("prefect_jobs_loop_lag_seconds", "The longest that the runs' event loop was late within a minute")
