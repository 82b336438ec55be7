"""A run on the terminal of a person: watching it, Ctrl-C, cancelling it. Importing it imports no Prefect."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from uuid import UUID

from prefect_jobs.deployments.printing import as_table, print_log, state_of, without_links

if TYPE_CHECKING:
    from prefect.client.schemas.objects import Log

    from prefect_jobs.deployments.runs import JobRun


def watch(run: JobRun) -> int:
    """Follow a run until it ends; Ctrl-C asks what shall become of it. The container's exit code, or 130.

    A pipeline's run ends with the table of its runs.
    """
    shown: set[UUID] = set()

    def show(log: Log) -> None:
        if log.id not in shown:  # Whoever goes on watching has seen it.
            shown.add(log.id)
            print_log(log)

    while True:
        try:
            run.watch(show, lambda flow_run: tell(f"[{state_of(flow_run)}]"), lambda hint: tell(f"[{hint}]"))
            break
        except KeyboardInterrupt:
            answer = _asked(run)
        if answer == "l":
            tell(f"The run goes on; 'prefect-jobs watch {run.name}' shows it again.")
            return 130
        if answer == "c":
            run.cancel("Ctrl-C of prefect-jobs")
            _end(run)
            break
    if run.is_pipeline and (rows := run.table()):
        print(f"\n{as_table(without_links(rows))}", flush=True)
    if run.exit_code != 0 and run.flow_run.state is not None:
        tell(run.flow_run.state.message or run.state)
    return run.exit_code


def cancel(run: JobRun, *, wait: bool, force: bool) -> int:
    """Cancel a run; 0 when it is Cancelled, or asked to be where nobody waits, and 1 where it has ended otherwise."""
    state = run.flow_run.state
    if state is not None and state.is_final():
        tell(f"{run.name} has ended already: {run.state}")
        if force:
            run.end(tell, force=True)
        return 0 if state.is_cancelled() else 1
    run.cancel("prefect-jobs cancel")
    if wait or force:
        _end(run, force=force)
    print(f"{run.name}: {run.state}")
    return 0 if not wait or _is_cancelled(run) else 1


def tell(words: str) -> None:
    """Tell a person something that is no output of the command."""
    print(words, file=sys.stderr, flush=True)


def _is_cancelled(run: JobRun) -> bool:
    return run.flow_run.state is not None and run.flow_run.state.is_cancelled()


def _end(run: JobRun, *, force: bool = False) -> None:
    """See a run that is Cancelling to its end."""
    if run.flow_run.state is not None and run.flow_run.state.is_cancelling():
        run.end(tell, force=force)


def _asked(run: JobRun) -> str:
    """What a person who pressed Ctrl-C wants: c(ancel), l(eave) or w(atch).

    Who cannot be asked, or presses it again, leaves.
    """
    if not sys.stdin.isatty():
        return "l"
    try:
        while True:
            answer = input(f"\n{run.name}: [c]ancel it, [l]eave it running, or keep [w]atching? ").strip().lower()[:1]
            if answer in ("c", "l", "w"):
                return answer
    except (KeyboardInterrupt, EOFError):
        print(file=sys.stderr)
        return "l"
