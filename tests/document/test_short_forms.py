from __future__ import annotations

from typing import Any

from prefect_jobs.job import Concurrency, Job, Retries, Timeouts
from prefect_jobs.quantities import Duration


def test_a_number_for_retries_means_as_many_of_each_cause() -> None:
    assert Job(name="a", image="x", retries=3).retry_policy == Retries(failures=3, infrastructure=3)


def test_a_duration_for_timeout_is_that_of_one_attempt() -> None:
    job = Job(name="a", image="x", timeout=Duration("5m"))
    assert job.timeouts == Timeouts(attempt=Duration("5m"))


def test_a_number_for_concurrency_queues_what_is_beyond() -> None:
    assert Job(name="a", image="x", concurrency=2).concurrency_policy == Concurrency(limit=2, beyond="queue")


def _delays(retries: int, **keys: Any) -> list[float]:
    policy = Retries.model_validate(keys)
    return [policy.delay_before(retry) for retry in range(1, retries + 1)]


def test_one_delay_stands_before_every_retry() -> None:
    assert _delays(3, delay="10s") == [10, 10, 10]
    assert _delays(3) == [0, 0, 0]


def test_the_last_delay_of_a_list_repeats() -> None:
    assert _delays(4, delay=["1s", "1m"]) == [1, 60, 60, 60]
    assert _delays(2, delay=[]) == [0, 0]


def test_a_delay_with_backoff_grows_up_to_the_longest() -> None:
    assert _delays(5, delay="10s", backoff=2, max_delay="1m") == [10, 20, 40, 60, 60]
    assert _delays(3, delay="2s", backoff=1.5) == [2, 3, 4.5]
    assert _delays(2000, delay="10s", backoff=2)[-1] == 86_400
    assert _delays(3, delay="2d", backoff=2) == [172_800] * 3


def test_limits_may_be_left_out() -> None:
    assert Timeouts.model_validate({"attempt": None, "total": "1s"}).attempt is None


def test_a_volume_is_writable_unless_it_says_ro() -> None:
    job = Job(name="a", image="x", volumes={"a": "/a", "b": "/b:ro", "c": "/c:rw"})
    assert [(mount.source, mount.target, mount.read_only) for mount in job.mounts] == [
        ("a", "/a", False),
        ("b", "/b", True),
        ("c", "/c", False),
    ]
