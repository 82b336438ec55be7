from __future__ import annotations

from prefect_jobs.job import Concurrency, Job, Retries, Timeouts
from prefect_jobs.quantities import Duration


def test_a_number_for_retries_means_as_many_of_each_cause() -> None:
    assert Job(name="a", image="x", retries=3).retry_policy == Retries(failures=3, infrastructure=3)


def test_a_duration_for_timeout_is_that_of_one_attempt() -> None:
    job = Job(name="a", image="x", timeout=Duration("5m"))
    assert job.timeouts == Timeouts(attempt=Duration("5m"))


def test_a_number_for_concurrency_queues_what_is_beyond() -> None:
    assert Job(name="a", image="x", concurrency=2).concurrency_policy == Concurrency(limit=2, beyond="queue")


def test_one_delay_stands_before_every_retry() -> None:
    assert Retries(delay=Duration("10s")).delays == [10.0]


def test_fifty_delays_are_taken_and_limits_may_be_left_out() -> None:
    assert len(Retries.model_validate({"delay": ["1s"] * 50}).delays) == 50
    assert Timeouts.model_validate({"attempt": None, "total": "1s"}).attempt is None


def test_a_volume_is_writable_unless_it_says_ro() -> None:
    job = Job(name="a", image="x", volumes={"a": "/a", "b": "/b:ro", "c": "/c:rw"})
    assert [(mount.source, mount.target, mount.read_only) for mount in job.mounts] == [
        ("a", "/a", False),
        ("b", "/b", True),
        ("c", "/c", False),
    ]
