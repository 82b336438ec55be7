"""What stands between a supervisor and a process: starts it, keeps its lines and its end, outlives the supervisor.

Run as a program of its own (``python -I -S shim.py FOLDER``), standard library only. Its folder is the contract:

    lock          held while the shim lives: two shims of one attempt never both run
    started.json  written before the process starts: an attempt is started once; then which processes these are
    log           a line for each line of the process: nanoseconds since 1970, ``o`` or ``e``, the text
    shim.sock     each connected client gets a byte when there is more in the log, and end of file at the end;
                  a client may send ``T`` (SIGTERM to the process group) or ``K`` (SIGKILL to all below the shim)
    exit.json     how it ended, written when everything else is; the disk has room for it from the start

The command and its environment come on standard input, so that no secret lies on the disk but those that the job wants
as files: they are in ``secrets`` from just before the process starts until it has ended. When the process ends, all
that it left running is killed, as a container's processes are. When the shim itself is killed, the kernel kills the
process too; what that leaves is found by `prefect_jobs.blocks.process_remains`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

SECRETS = "secrets"
CHUNK = 1 << 16
RESERVED = 4096
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Run the attempt of the folder named on the command line.

    Says ``ready`` once the process is started, or ``taken`` if another shim has the attempt or had it.
    """
    os.chdir(sys.argv[1])
    request = json.load(sys.stdin)
    if os.fork() > 0:
        os._exit(0)  # The supervisor has no child to wait for.
    if not is_first():
        say("taken")
        return
    Shim(request).run()


def is_first() -> bool:
    """Take the attempt for this shim, for as long as it lives; False if another has it or had it."""
    lock = os.open("lock", os.O_CREAT | os.O_RDWR, 0o600)
    deadline = time.monotonic() + 5
    while not os.path.exists("started.json") and time.monotonic() < deadline:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # Another shim, which starts now, or somebody who looks whether one lives.
            time.sleep(0.005)
            continue
        if os.path.exists("started.json"):
            break
        write_whole("started.json", {"shim": mark_of(os.getpid())})
        return True
    return False


def say(word: str) -> None:
    """Answer the supervisor, which reads one line; it may be dead by now, and the process goes on."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), f"{word}\n".encode())


class Shim:
    """One process, from its start to the end of everything it started."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.longest_line: int = request["longest_line"]
        reserve("exit.json")
        self.spare = os.open(os.devnull, os.O_RDONLY)
        self.selector = selectors.DefaultSelector()
        self.log = open("log", "ab", buffering=0)  # noqa: SIM115 - lives as long as the shim
        self.owed = b""
        self.lost_lines = 0
        self.clients: set[socket.socket] = set()
        self.pending: dict[str, bytes] = {"o": b"", "e": b""}
        self.process: subprocess.Popen[bytes] | None = None
        self.asked_to_stop = False
        self.started = time.time_ns()
        adopt_orphans()

    def run(self) -> None:
        """Start the process, keep what it writes, and write down how it ended.

        If the shim fails, the process does not outlive it, and the reason is written down instead.
        """
        failure, oom_kills = None, count_oom_kills()
        code = -signal.SIGKILL
        try:
            self.listen()
            wake, _ = self.wake_on_signals()
            start_code = self.start()
            say("ready")
            redirect_standard_streams()
            if self.process is None:
                code = start_code
            else:
                code = self.loop(wake)
                self.kill_all()
                self.drain()
            for stream in self.pending:
                self.flush(stream)
        except BaseException as error:
            failure = f"{type(error).__name__}: {error}"[:500]
            raise
        finally:
            if failure is not None:
                self.kill_all()
            remove_secrets(self.request["secrets"])
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            write_reserved(
                "exit.json",
                {
                    "code": code if code >= 0 else 128 - code,
                    "signal": -code if code < 0 else None,
                    "asked_to_stop": self.asked_to_stop,
                    # A shell hands on the signal of its child as an exit code.
                    "out_of_memory": code in (-signal.SIGKILL, 128 + signal.SIGKILL) and count_oom_kills() > oom_kills,
                    "started": self.started,
                    "ended": time.time_ns(),
                    "cpu_seconds": usage.ru_utime + usage.ru_stime,
                    # getrusage(2): of the largest process, in KiB; macOS counts bytes.
                    "peak_memory": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
                    "lost_lines": self.lost_lines,
                    "failure": failure,
                },
            )

    def listen(self) -> None:
        """Open the socket on which clients are told of news and give orders."""
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind("shim.sock")
        server.listen(16)
        server.setblocking(False)
        self.selector.register(server, selectors.EVENT_READ, self.accept)
        self.server = server

    def wake_on_signals(self) -> tuple[int, int]:
        """Let signals end a wait for pipes and clients; the pipe that they write to."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self.stop(signal.SIGTERM))
        self.selector.register(reading, selectors.EVENT_READ, None)
        return reading, writing

    def start(self) -> int:
        """Start the process; an exit code other than 0 where that failed, as a shell would report it."""
        write_secrets(self.request["secrets"])
        try:
            self.process = subprocess.Popen(
                self.request["argv"],
                cwd=self.request["cwd"],
                env=self.request["env"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=dying_with(os.getpid()),
            )
        except OSError as error:
            name = self.request["argv"][0]
            self.write("e", [f"prefect-jobs: cannot start {name!r}: {error.strerror}".encode()])
            return 127 if isinstance(error, FileNotFoundError) else 126
        with contextlib.suppress(OSError):  # It is found by its environment too.
            marks = {"shim": mark_of(os.getpid()), "process": mark_of(self.process.pid), "at": self.started}
            write_whole("started.json", marks)
        for stream, pipe in (("o", self.process.stdout), ("e", self.process.stderr)):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self.selector.register(pipe, selectors.EVENT_READ, lambda file, s=stream: self.read(file, s))
        return 0

    def loop(self, wake: int) -> int:
        """Serve pipes and clients until the process has ended; its exit code (negative: signal)."""
        assert self.process is not None
        while True:
            for key, _ in self.selector.select():
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake, 4096)
                else:
                    key.data(key.fileobj)
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if pid == 0:
                    break
                if pid == self.process.pid:
                    return os.waitstatus_to_exitcode(status)

    def kill_all(self) -> None:
        """Kill the process and all that it started, even where clients have taken every open file."""
        with contextlib.suppress(OSError):
            os.close(self.spare)
        if self.process is not None:
            kill_all(self.process.pid)

    def drain(self) -> None:
        """Read what is left in the pipes; nobody is left to write to them."""
        assert self.process is not None
        for stream, pipe in (("o", self.process.stdout), ("e", self.process.stderr)):
            while pipe is not None and pipe in self.selector.get_map():
                if not self.read(pipe, stream):
                    break

    def read(self, pipe: Any, stream: str) -> bool:
        """Read once from a pipe into the log; False when there was nothing."""
        try:
            data = os.read(pipe.fileno(), CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self.selector.unregister(pipe)
            return False
        *lines, rest = (self.pending[stream] + data).split(b"\n")
        whole: list[bytes] = []
        for line in lines:
            whole.append(self.all_but_its_end(line, whole))
        self.pending[stream] = self.all_but_its_end(rest, whole)
        self.write(stream, whole)
        return True

    def all_but_its_end(self, line: bytes, whole: list[bytes]) -> bytes:
        """Cut what of a line is too long to be held into lines of the longest length; what is left of it."""
        while len(line) > self.longest_line:
            whole.append(line[: self.longest_line])
            line = line[self.longest_line :]
        return line

    def flush(self, stream: str) -> None:
        """Keep a last line that has no line break."""
        if self.pending[stream]:
            self.write(stream, [self.pending[stream]])
            self.pending[stream] = b""

    def write(self, stream: str, lines: list[bytes]) -> None:
        """Keep lines and tell all clients."""
        if not lines:
            return
        name = stream.encode()
        self.append([(b"%d %s " % (time.time_ns(), name), line + b"\n") for line in lines])
        for client in list(self.clients):
            # A full buffer means that the client already knows.
            with contextlib.suppress(BlockingIOError, OSError):
                client.send(b".")

    def append(self, lines: list[tuple[bytes, bytes]]) -> None:
        """Append lines to the log at once; where the disk takes a part only, the rest of them one by one."""
        data, written = self.owed + b"".join([head + text for head, text in lines]), 0
        with contextlib.suppress(OSError):
            written = self.log.write(data)
        if written == len(data):
            self.owed = b""
            return
        self.owed, written = self.owed[written:], max(0, written - len(self.owed))
        for head, text in lines:
            size = len(head) + len(text)
            if self.owed or written < size:
                self.append_one(head, text, written)
            written = max(0, written - size)

    def append_one(self, head: bytes, text: bytes, written: int) -> None:
        """Append a line of which so much is written. The log keeps its form: the line is lost, not the job."""
        data = self.owed + head + text
        try:
            while written < len(data):
                written += self.log.write(data[written:])
        except OSError:
            self.lost_lines += 1
            begun = written > len(self.owed)
            self.owed = (self.owed + head)[written:] + b"\n" if begun else self.owed[written:]
        else:
            self.owed = b""

    def accept(self, server: Any) -> None:
        """Take a client, or leave it where it is while there are too many."""
        try:
            client, _ = server.accept()
        except OSError:
            time.sleep(0.02)
            return
        client.setblocking(False)
        self.clients.add(client)
        self.selector.register(client, selectors.EVENT_READ, self.obey)
        # Lines that came between the client's connecting and now were announced to others only.
        with contextlib.suppress(OSError):
            client.send(b".")

    def obey(self, client: Any) -> None:
        """Carry out a client's orders, or let it go."""
        try:
            orders = client.recv(64)
        except OSError:
            orders = b""
        if not orders:
            self.selector.unregister(client)
            self.clients.discard(client)
            client.close()
        for order in orders:
            self.stop(signal.SIGTERM if order == ord("T") else signal.SIGKILL)

    def stop(self, number: signal.Signals) -> None:
        """Send a signal to the process group."""
        self.asked_to_stop = True
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


def process_control() -> Callable[..., int] | None:
    """The system call prctl(2), where the system has it (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        return ctypes.CDLL(None, use_errno=True).prctl
    return None


def adopt_orphans() -> None:
    """Become the parent of processes whose own parent ended, so that none escapes."""
    if call := process_control():
        call(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def dying_with(parent: int) -> Callable[[], None]:
    """What a new process does before its program: have the kernel kill it when its parent, a single thread, ends."""
    call = process_control()

    def ask() -> None:
        if call is not None:
            call(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # It ended before it was asked.
            os._exit(128 + signal.SIGKILL)

    return ask


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did (field 22 of proc(5)'s stat); None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return None


def mark_of(pid: int) -> dict[str, int | None]:
    """What tells a process from a later one of the same number."""
    return {"pid": pid, "start_time": start_time(pid)}


def count_oom_kills() -> int:
    """How many processes the kernel has killed for memory since the machine started (proc(5), vmstat)."""
    with contextlib.suppress(OSError, ValueError), open("/proc/vmstat") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    return 0


def children() -> list[int]:
    """The processes whose parent the shim is, by proc(5); none where the system does not tell."""
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children") as file:
                found += [int(pid) for pid in file.read().split()]
    return found


def kill_all(group: int) -> None:
    """Kill the process group and everything that ended up below the shim, and reap it, within five seconds."""
    deadline = time.monotonic() + 5
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    while time.monotonic() < deadline:
        for pid in children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def redirect_standard_streams() -> None:
    """Let go of the supervisor's pipes: it may end before the process does."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)


def write_secrets(contents: dict[str, str]) -> None:
    """Write each secret into a file that only this user may read."""
    if contents:
        os.mkdir(SECRETS, 0o700)
    for name, value in contents.items():
        file = os.open(f"{SECRETS}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(file, "wb") as opened:
            opened.write(value.encode())


def remove_secrets(names: Iterable[str]) -> None:
    """Remove the files of the secrets; what the process put beside them goes with the attempt's folder."""
    for name in names:
        with contextlib.suppress(OSError):
            os.unlink(f"{SECRETS}/{name}")
    with contextlib.suppress(OSError):
        os.rmdir(SECRETS)


def write_whole(name: str, content: dict[str, Any]) -> None:
    """Write a file that is there completely or not at all."""
    part = f"{name}.{os.getpid()}-{time.monotonic_ns()}.part"  # Several may write the same file at once.
    with open(part, "w") as file:
        json.dump(content, file)
    os.replace(part, name)


def reserve(name: str) -> None:
    """Take the room on the disk for a file that is written later."""
    with open(f"{name}.part", "wb") as file:
        file.write(b" " * RESERVED)


def write_reserved(name: str, content: dict[str, Any]) -> None:
    """Write a file for which there is room, completely or not at all; the blanks that stay behind it are JSON too."""
    with open(f"{name}.part", "r+b") as file:
        file.write(json.dumps(content).encode())
    os.replace(f"{name}.part", name)


if __name__ == "__main__":
    main()
