"""The job template: one YAML mapping, one Python object, one Prefect deployment."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Tag, field_validator, model_validator

from prefect_jobs import parameters as typed
from prefect_jobs._upstairs import upstairs
from prefect_jobs.model import LIST, MAPPING, PLAIN, ByKind, Model, Problem, refuse
from prefect_jobs.names import DEFAULT_WORK_POOL, NAME
from prefect_jobs.parameters import Parameter, Value
from prefect_jobs.quantities import Duration
from prefect_jobs.references import references
from prefect_jobs.spec import (
    RESERVED_ENVIRONMENT,
    SECRETS_FOLDER,
    Mount,
    Places,
    PullPolicy,
    Security,
    Shape,
    file_variable,
)
from prefect_jobs.storage import Checkpoint, Store, StoreName, Uri, input_problems

# What a run may override, beside its typed parameters; ``job`` carries the template itself.
OVERRIDES = ("env", "args", "command", "shape", "timeout", "infrastructure", "inputs")
# What a pipeline tells each run of a matrix; no form shows it.
PLACE = ("index", "count")
# Beside them: what a later release may override, what `Job.run` takes, and what Prefect takes where a flow is called.
RESERVED_PARAMETERS = frozenset(
    {
        *("job", *OVERRIDES, *PLACE, "store", "checkpoint", "image"),
        *("run_name", "run_tags"),
        *("return_state", "wait_for"),
    }
)

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
INFRASTRUCTURE_NAME = r"(process|docker)(/[a-z0-9]+(-[a-z0-9]+)*)?"
# Names of what a later release may have.
_RESERVED_INFRASTRUCTURES = {"kubernetes"}
SECRET_FILE = rf"^{SECRETS_FOLDER}/[A-Za-z0-9_][A-Za-z0-9._-]*$"
_INPUT_NAME = r"^[A-Za-z0-9_]([A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?$"


def _argument(value: Any) -> Any:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("expected text without NUL, which no environment variable and no argument can hold")
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return value
    raise ValueError("expected a string or a number; put it in quotes")


def _words(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"expected a list of strings, such as [{', '.join(value.split())}]")
    return value


def check_environment_name(name: str) -> str:
    """Refuse a name that is no environment variable, or one that prefect-jobs sets itself."""
    if not _ENVIRONMENT_NAME.fullmatch(name):
        raise ValueError("expected the name of an environment variable: letters, digits and underscores")
    if name in RESERVED_ENVIRONMENT:
        raise ValueError("prefect-jobs sets this name itself and nobody overrides it; choose another one")
    return name


def _above_zero(duration: Duration) -> Duration:
    if duration.seconds <= 0:
        raise ValueError("expected a duration above zero; leave it out for no limit")
    return duration


def check_infrastructure(reference: str) -> str:
    """Refuse what is not ``type`` or ``type/block-name``."""
    if reference.partition("/")[0] in _RESERVED_INFRASTRUCTURES:
        raise ValueError("this release has process and docker; choose one of them")
    if not re.fullmatch(INFRASTRUCTURE_NAME, reference):
        raise ValueError("expected a type and the name of its block: process, docker, docker/local …")
    return reference


Count = Annotated[int, Field(ge=0)]
Limit = Annotated[int, Field(ge=1)]
Argument = Annotated[str | int | float, BeforeValidator(_argument)]
Words = Annotated[list[Argument], BeforeValidator(_words)]
EnvironmentName = Annotated[str, AfterValidator(check_environment_name)]
Environment = dict[EnvironmentName, Argument]
InfrastructureName = Annotated[str, AfterValidator(check_infrastructure), Field(examples=["process", "docker/local"])]
InputName = Annotated[str, Field(pattern=_INPUT_NAME)]
TimeLimit = Annotated[Duration, AfterValidator(_above_zero)]
# No more than Prefect takes.
Delays = Annotated[list[Duration], Field(max_length=50)]
# Where nobody says how long a delay that grows may become.
_LONGEST_DELAY = Duration("1d")


class Retries(Model):
    """How often an attempt is followed by another, and after how long."""

    failures: int = Field(default=0, ge=0)
    """Retries after the job's own failures: exit codes, out of memory, timeouts."""
    infrastructure: int = Field(default=0, ge=0)
    """Retries after failures of the infrastructure: evicted, preempted, lost, killed, unschedulable."""
    delay: Annotated[Annotated[Duration, Tag(PLAIN)] | Annotated[Delays, Tag(LIST)], ByKind] = Duration(0)
    """How long to wait before a retry; a list of up to 50 is the delay of the first, second, … and the last repeats."""
    backoff: int | float = Field(default=1, ge=1, json_schema_extra={"minimum": 1})
    """Factor by which the delay grows from retry to retry: 2 waits 10s, 20s, 40s, … where the delay is 10s."""
    max_delay: TimeLimit | None = None
    """What a delay that grows does not grow beyond; default: 1d."""
    jitter: int | float = Field(default=0, ge=0, le=1, json_schema_extra={"minimum": 0, "maximum": 1})
    """Spread of the delay: 0.2 waits up to 20 % longer, or as much shorter as keeps the average, which is 18 %."""
    never_on: list[Annotated[int, Field(ge=1, le=255)]] = []
    """Exit codes that are never retried."""

    @model_validator(mode="after")
    def _delay_can_grow(self) -> Retries:
        refuse("Retries", self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        if self.backoff > 1 and isinstance(self.delay, list):
            yield ("backoff",), "expected one delay that grows, or a list that says each; keep one", self.backoff
        elif self.backoff > 1 and self.delay.seconds == 0:  # type: ignore[union-attr]
            yield ("backoff",), "expected a delay that can grow beside it, such as delay: 10s", self.backoff
        if self.max_delay is None:
            return
        if self.backoff == 1:
            yield ("max_delay",), "expected a backoff beside it, such as backoff: 2", self.max_delay.source
        elif isinstance(self.delay, Duration) and self.max_delay.seconds < self.delay.seconds:
            yield ("max_delay",), f"expected no less than the first delay, {self.delay}", self.max_delay.source

    def delay_before(self, retry: int) -> float:
        """Seconds before the first (1), second, … retry, whatever the causes of those before it; without jitter."""
        if isinstance(self.delay, list):
            return self.delay[min(retry, len(self.delay)) - 1].seconds if self.delay else 0.0
        delay = self.delay.seconds
        most = max(delay, (self.max_delay or _LONGEST_DELAY).seconds)
        for _ in range(retry - 1):
            if self.backoff == 1 or delay >= most:
                break
            delay = min(delay * self.backoff, most)
        return delay


class SecretSource(Model):
    """Where a secret's value comes from, and how the container gets it."""

    block: str
    """Name of the Prefect Secret block that holds the value."""
    file: str | None = Field(default=None, pattern=SECRET_FILE, examples=[f"{SECRETS_FOLDER}/tls.key"])
    """Path of a file below /run/secrets that has the value, instead of an environment variable; NAME_FILE says it."""


class Timeouts(Model):
    """How long a run may take. A phase that is not named has no limit."""

    attempt: TimeLimit | None = None
    """One attempt, from the container's start."""
    total: TimeLimit | None = None
    """All attempts and the waits between them."""
    start: TimeLimit | None = None
    """Until the container has started: pull, queueing and scheduling."""


class Concurrency(Model):
    """How many runs of the job go at once."""

    limit: int = Field(ge=1)
    """The most runs at one time."""
    beyond: Literal["queue", "refuse"] = "queue"
    """What happens to a run past the limit: it waits, or it is cancelled."""


class Schedule(Model):
    """When the job starts by itself. Exactly one of cron, interval and rrule."""

    cron: str | None = None
    """A cron expression of five fields, such as "0 8 * * *"."""
    interval: Duration | None = None
    """The time from one run to the next."""
    rrule: str | None = None
    """A recurrence rule of RFC 5545."""
    timezone: str = "UTC"
    """An IANA time zone, such as Europe/Berlin."""
    parameters: dict[str, Any] = {}
    """Typed parameters and overrides of the runs that this schedule starts."""

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, cron: str | None) -> str | None:
        if cron is not None and not cron.startswith("@") and len(cron.split()) != 5:
            raise ValueError("expected a cron expression of five fields, such as '0 8 * * *'")
        return cron

    @field_validator("timezone")
    @classmethod
    def _is_timezone(cls, name: str) -> str:
        from zoneinfo import ZoneInfo

        try:
            ZoneInfo(name)
        except Exception:
            raise ValueError("expected an IANA time zone such as UTC or Europe/Berlin") from None
        return name

    @model_validator(mode="after")
    def _has_one_kind(self) -> Schedule:
        kinds = [kind for kind in ("cron", "interval", "rrule") if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"expected exactly one of cron, interval and rrule, found {' and '.join(kinds) or 'none'}")
        if self.interval is not None and self.interval.seconds <= 0:
            raise ValueError("expected an interval above zero")
        return self


def schedule_problems(
    schedules: list[Schedule], parameters: dict[str, Parameter], owner: str, overrides: Collection[str] = ()
) -> Iterator[Problem]:
    """What schedules give that their owner does not take, and what they leave out."""
    known = ", ".join(parameters) or "none"
    for place, schedule in enumerate(schedules):
        where = ("schedules", place, "parameters")
        for name, value in schedule.parameters.items():
            if name in overrides:
                continue
            if name not in parameters:
                yield (*where, name), f"no such parameter; the {owner} has: {known}", value
            elif problem := parameters[name].problem_with(value):
                yield (*where, name), problem, value
        for name, parameter in parameters.items():
            if parameter.required and name not in schedule.parameters:
                yield (*where, name), "has no default, so the schedule must give it", None


class Logging(Model):
    """Where the container's lines go."""

    prefect: bool = True
    """Whether they go to the run's log in Prefect."""
    store: bool = True
    """Whether the complete log is kept in the job's store, as log.txt; without a store it is not."""
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least level that goes to Prefect: stdout is INFO, stderr is WARNING."""
    max_lines: int = Field(default=100_000, ge=0)
    """How many lines of an attempt go to Prefect at most; a last one says how many were left out."""


class Job(Model):
    """A job: what runs, where, with what, and when.

    Example:
        >>> job = Job(name="hello", image="busybox:1", command=["echo", "{{ who }}"],
        ...           parameters={"who": Parameter(default="world")})
    """

    name: str = Field(pattern=NAME, exclude=True)
    """The name: its deployment is job/<name>."""
    project: str | None = Field(default=None, pattern=NAME, exclude=True)
    """The project of the file that it came from; pruning stays inside a project."""
    description: str | None = None
    """What it does; shown in the Prefect UI."""
    infrastructure: InfrastructureName = "process"
    """Where it runs: a block's type, or type/name. Without a name: that type's defaults."""
    image: str | None = Field(default=None, min_length=1, examples=["iris:1"])
    """The container image. A process needs none."""
    command: Words | None = Field(default=None, min_length=1)
    """Replaces the image's entrypoint. ``{{ name }}`` is the value of a parameter."""
    args: Words | None = None
    """Arguments of the command, or of the image's entrypoint. ``{{ name }}`` as in the command."""
    env: Environment = {}
    """Environment variables. A name with a leading underscore cannot be overridden by a run."""
    secrets: dict[
        EnvironmentName, Annotated[Annotated[str, Tag(PLAIN)] | Annotated[SecretSource, Tag(MAPPING)], ByKind]
    ] = {}
    """Environment variable: name of the Prefect Secret block that holds its value; or block and file."""
    parameters: dict[str, Parameter] = {}
    """What a run may be asked for: the run form, and environment variables of the container."""
    inputs: dict[InputName, Uri] = {}
    """Name: URI of a file or a prefix, which is in /data/input/<name> when the container starts."""
    store: Annotated[Annotated[StoreName, Tag(PLAIN)] | Annotated[Store, Tag(MAPPING)], ByKind] | None = None
    """The Object Store block in which outputs, checkpoints and logs of the runs are kept."""
    checkpoint: Checkpoint = "run"
    """How long /data/checkpoint is kept: for the attempts of a run, or in the store from run to run of the job."""
    shape: Annotated[Annotated[str, Tag(PLAIN)] | Annotated[Shape, Tag(MAPPING)], ByKind] = Shape()
    """CPU, memory, GPU, shared memory; or the name of a shape that the infrastructure defines."""
    volumes: dict[str, str] = {}
    """Volume name, or absolute path of a host folder: path in the container, with :ro for read-only."""
    security: Security = Security()
    """Rights beyond those of a plain container."""
    pull_policy: PullPolicy = "IfNotPresent"
    """When the image is pulled."""
    retries: Annotated[Annotated[Count, Tag(PLAIN)] | Annotated[Retries, Tag(MAPPING)], ByKind] = 0
    """Retries of a failed attempt; a number is as many of each cause."""
    timeout: Annotated[Annotated[TimeLimit, Tag(PLAIN)] | Annotated[Timeouts, Tag(MAPPING)], ByKind] = Timeouts()
    """Timeouts; a single duration is that of one attempt."""
    grace_period: Duration = Duration("10s")
    """Time between SIGTERM and SIGKILL when a container is stopped."""
    keep: Duration | None = None
    """How long a container that failed is kept for a look; without it, it is removed at once."""
    concurrency: Annotated[Annotated[Limit, Tag(PLAIN)] | Annotated[Concurrency, Tag(MAPPING)], ByKind] | None = None
    """How many runs at once; a number queues those beyond it."""
    schedules: list[Schedule] = []
    """When it starts by itself."""
    logging: Logging = Logging()
    """Where its output goes."""
    tags: list[str] = []
    """Tags of the deployment and of its runs."""

    @field_validator("volumes")
    @classmethod
    def _volumes_can_be_mounted(cls, volumes: dict[str, str]) -> dict[str, str]:
        refuse("Job", _volume_problems(volumes))
        return volumes

    @model_validator(mode="after")
    def _is_whole(self) -> Job:
        if self.image is None and self.command is None:
            raise ValueError("expected an image, a command, or both")
        refuse("Job", self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        """What the keys of a job say against each other."""
        for name in self.parameters:
            try:
                typed.check_name(name, RESERVED_PARAMETERS)
                check_environment_name(name)
            except ValueError as error:
                yield ("parameters", name), str(error), name
        known = ", ".join(self.parameters) or "none"
        for key, words in (("command", self.command), ("args", self.args)):
            for place, word in enumerate(words or []):
                for name in sorted(set(references(str(word))) - self.parameters.keys()):
                    yield (key, place), f"{{{{ {name} }}}} names no parameter; the job has: {known}", word
        for input_, wrong, uri in input_problems(self.inputs, self.store is not None):
            yield ("inputs", input_), wrong, uri
        if self.checkpoint == "job" and self.store is None:
            yield ("checkpoint",), "is kept in the job's store, and the job has none; set store", self.checkpoint
        yield from self._secret_problems()
        yield from schedule_problems(self.schedules, self.parameters, "job", OVERRIDES)

    def _secret_problems(self) -> Iterator[Problem]:
        """What a secret says against the other variables, files and volumes of the job."""
        sources = self.secret_sources
        files: dict[str, str] = {}
        for name, source in sources.items():
            found = self.secrets[name]
            if name in self.env or name in self.parameters:
                yield ("secrets", name), "is a secret and also set in env or parameters; keep one", found
            if source.file is None:
                continue
            if (variable := file_variable(name)) in self.env.keys() | self.parameters.keys() | self.secrets.keys():
                words = f"the job also sets {variable}, which says where this file is; choose another name"
                yield ("secrets", name, "file"), words, source.file
            if (other := files.setdefault(source.file, name)) != name:
                yield ("secrets", name, "file"), f"is the file of {other!r}; choose another one", source.file
            for volume, target in self.volumes.items():
                if _is_at(posixpath.normpath(target.partition(":")[0]), SECRETS_FOLDER):
                    words = f"hides {SECRETS_FOLDER}, where {name!r} has its file; choose another path"
                    yield ("volumes", volume), words, target

    @property
    def secret_sources(self) -> dict[str, SecretSource]:
        """The secrets, spelled out."""
        return {
            name: secret if isinstance(secret, SecretSource) else SecretSource(block=secret)
            for name, secret in self.secrets.items()
        }

    @property
    def state(self) -> Store | None:
        """The store, spelled out."""
        return Store(block=self.store) if isinstance(self.store, str) else self.store

    @property
    def retry_policy(self) -> Retries:
        """The retries, spelled out."""
        if isinstance(self.retries, Retries):
            return self.retries
        return Retries(failures=self.retries, infrastructure=self.retries)

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts, spelled out."""
        return timeouts(self.timeout)

    @property
    def mounts(self) -> list[Mount]:
        """The volumes, spelled out."""
        return [
            Mount(source=source, target=target.partition(":")[0], read_only=target.endswith(":ro"))
            for source, target in self.volumes.items()
        ]

    @property
    def concurrency_policy(self) -> Concurrency | None:
        """The concurrency limit, spelled out."""
        return Concurrency(limit=self.concurrency) if isinstance(self.concurrency, int) else self.concurrency

    def document(self) -> dict[str, Any]:
        """The mapping that stands below the job's name in a document: what was set, as it was written."""
        return self.model_dump(mode="json", exclude_unset=True)

    def defaults(self) -> dict[str, Value]:
        """The parameters that have a default, with it."""
        return {name: p.default for name, p in self.parameters.items() if p.default is not None}

    def apply(self, *, work_pool: str | None = DEFAULT_WORK_POOL) -> Any:
        """Make or update the deployment ``job/<name>``; the same template changes nothing.

        Returns the change that was made; in a running event loop, an awaitable of it. ``work_pool`` is made as a pool
        of type ``process`` where it is missing.
        """
        return upstairs("prefect_jobs.deployments.apply:apply_job")(self, work_pool=work_pool)

    def run(self, /, *, run_name: str | None = None, run_tags: list[str] | None = None, **request: Any) -> Any:
        """Start a run of the job's deployment and return its `JobRun`; in a running event loop, an awaitable of it.

        Keywords are typed parameters and the overrides ``env``, ``args``, ``command``, ``shape``, ``timeout``,
        ``infrastructure`` and ``inputs``; ``run_name`` and ``run_tags`` name and tag the run.
        """
        start = upstairs("prefect_jobs.deployments.runs:start_run")
        return start(self.name, request, run_name=run_name, run_tags=run_tags)

    def to_deployment(self) -> Any:
        """A deployment for ``prefect.serve(...)``, which runs the job in this process without a worker."""
        return upstairs("prefect_jobs.deployments.serving:to_deployment")(self)


def volume_variable(name: str) -> str:
    """The environment variable by which a process finds a named volume."""
    return "JOB_VOLUME_" + "".join(char if char.isalnum() else "_" for char in name).upper()


# Where a container finds its own folders and the machine's; a volume there would hide them.
_TAKEN_TARGETS = (*Places().model_dump().values(), "/proc", "/sys", "/dev")


def _volume_problems(volumes: dict[str, str]) -> Iterator[Problem]:
    """What cannot be mounted, each under its own volume."""
    targets: dict[str, str] = {}
    variables: dict[str, str] = {}
    for source, target in volumes.items():
        path, _, mode = target.partition(":")
        place = posixpath.normpath(path).replace("//", "/")
        is_folder = source.startswith("/")
        words = None
        if not path.startswith("/") or mode not in ("", "ro", "rw"):
            words = "expected an absolute path such as /scratch or /scratch:ro"
        elif not is_folder and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", source):
            words = "expected a volume's name or the absolute path of a host folder"
        elif ".." in source.split("/") or ".." in path.split("/"):
            words = "expected a path without '..'"
        elif source.startswith("prefect-jobs-"):
            words = "volumes whose names begin with 'prefect-jobs-' belong to single runs; choose another name"
        elif taken := next((each for each in ("/", *_TAKEN_TARGETS) if _is_at(place, each)), None):
            words = f"expected a path that is not {'' if taken == '/' else 'at or below '}{taken}, such as /scratch"
        elif (other := targets.setdefault(place, source)) != source:
            words = f"is where volume {other!r} is mounted; choose another path"
        elif not is_folder and (other := variables.setdefault(volume_variable(source), source)) != source:
            words = f"a process finds it in {volume_variable(source)}, as it does volume {other!r}; choose another name"
        if words:
            yield (source,), words, target


def _is_at(path: str, place: str) -> bool:
    """Whether a path is a place or below it; nothing is below the root."""
    return path == place or (place != "/" and path.startswith(f"{place}/"))


def timeouts(value: Duration | Timeouts) -> Timeouts:
    """A timeout, spelled out: a single duration is that of one attempt."""
    return Timeouts(attempt=value) if isinstance(value, Duration) else value
