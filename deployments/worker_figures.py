"""What a worker counts, in Prometheus' format: Prefect's own metrics server of a client serves it where it is on."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ACTIVE = Gauge("prefect_jobs_runs_active", "Runs that are looked after now")
STARTED = Counter("prefect_jobs_runs_started_total", "Runs that were begun: new ones, and adopted ones", ["how"])
ENDED = Counter("prefect_jobs_runs_ended_total", "Runs that ended, by the name of their last state", ["state"])
SECONDS_TO_START = Histogram(
    "prefect_jobs_seconds_to_start",
    "Seconds from the time for which a run was scheduled to the start of its first container",
    buckets=(0.1, 0.2, 0.3, 0.5, 0.7, 1, 2, 5, 10, 30, 60, 300),
)
API_REQUESTS = Counter("prefect_jobs_api_requests_total", "Requests to Prefect's API on behalf of runs")
API_ERRORS = Counter("prefect_jobs_api_errors_total", "Requests on behalf of runs that Prefect's API could not answer")
API_AWAY = Gauge("prefect_jobs_api_away", "1 while Prefect's API does not answer, else 0")
LOOP_LAG = Gauge("prefect_jobs_loop_lag_seconds", "The longest that the runs' event loop was late within a minute")
SUPERVISORS = Gauge("prefect_jobs_supervisors", "Workers of the pool that are alive, this one included")
LEASE_AGE = Gauge("prefect_jobs_lease_age_seconds", "Seconds since this worker's lease was taken or renewed")
