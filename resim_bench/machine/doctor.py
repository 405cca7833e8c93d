"""Whether everything works on a machine, before it costs money: how `resim-bench doctor` looks, and what it prints.

What it looks at stands in `hardware.py` and in the rooms' `doctor.py`. All of it runs in a process beside this one, so
that what raises, dies or hangs is a line of the table, and the rest goes on.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import socket
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

from resim_bench import files
from resim_bench.errors import UserError, one_line
from resim_bench.machine.estimate import human_time

READY, NOTED, LEFT_OUT, NOT_READY = "ready", "noted", "left out", "not ready"
MINUTES = 10  # that all of it may take
QUIET = "look again when nothing else runs on the machine"
ANEW = "make the environment anew: rm -r .venv, then make list"


class Finding(NamedTuple):
    """What came of looking.

    Attributes:
        state: READY; NOTED, it works, but is slow, missing or another than usual; LEFT_OUT, as nothing here needs it or
            can have it; NOT_READY.
        said: what was found.
        do: what to do about it; where it is empty and the state NOTED or NOT_READY, the check's `remedy`.
    """

    state: str
    said: str
    do: str = ""


class Check(NamedTuple):
    """Something to look at.

    Attributes:
        what: its name in the table.
        look: finds out; what it raises is that it is not ready. A function of a module, as it runs elsewhere.
        args: of `look`.
        remedy: what to do where it is not ready.
        seconds: that it may take.
    """

    what: str
    look: Callable[..., Finding]
    args: tuple = ()
    remedy: str = ""
    seconds: float = 60


def leave_out(why: str) -> Finding:
    """The look at what is not looked at here."""
    return Finding(LEFT_OUT, why)


WIDTH, STATE, LINE = 44, 11, 120  # columns of the name and of the state, and of all


def examine(sections: Mapping[str, Callable[[Path], Iterable[Check]]], minutes: float = MINUTES) -> int:
    """Look at everything, print each line as it comes, then the verdict and what to do.

    Args:
        sections: by their titles, what makes their checks; it is given an empty folder, which is removed at the end.
        minutes: after these, what is left is not looked at any more.

    Returns:
        1 where anything is not ready, else 0.
    """
    started = time.monotonic()
    findings: list[tuple[str, Finding]] = []
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no process outlives this one
    try:
        with files.temporary("resim-bench-doctor-") as folder, _Examiner(folder) as examiner:
            for title, checks in sections.items():
                print(f"{title}", flush=True)
                for check in _checks(title, checks, folder):
                    print(_named(check.what), end="", flush=True)
                    left = 60 * minutes - (time.monotonic() - started)
                    finding = examiner.look(check, left)
                    print(_wrapped(f"{finding.state:{STATE}}{finding.said}", 2 + WIDTH, STATE), flush=True)
                    findings.append((check.what, finding))
    finally:
        signal.signal(signal.SIGTERM, before)
    print("\n" + "\n".join(verdict(findings, time.monotonic() - started)), flush=True)
    return int(any(finding.state == NOT_READY for _, finding in findings))


def _checks(title: str, make: Callable[[Path], Iterable[Check]], folder: Path) -> list[Check]:
    """A section's checks; where it cannot even be imported, one that says so."""
    try:
        return list(make(folder))
    except Exception as error:
        return [Check(title, _refuse, (sentence(error),), ANEW)]


def _refuse(said: str) -> Finding:
    return Finding(NOT_READY, said)


def verdict(findings: Iterable[tuple[str, Finding]], seconds: float) -> Iterator[str]:
    """Ready or not, how many of what, and a sentence for each thing to do; what is not ready comes first."""
    findings = list(findings)
    count = Counter(finding.state for _, finding in findings)
    looked = len(findings) - count[LEFT_OUT]
    bad = f"not ready: {count[NOT_READY]} of {looked}" if count[NOT_READY] else f"ready: all of {looked}"
    others = [f"{count[NOTED]} to note"] * bool(count[NOTED]) + [f"{count[LEFT_OUT]} left out"] * bool(count[LEFT_OUT])
    yield f"{', '.join([bad, *others])}; {human_time(seconds)}"
    for state, heading in ((NOT_READY, "what to do"), (NOTED, "worth knowing")):
        some = [(what, finding.do) for what, finding in findings if finding.state == state and finding.do]
        if some:
            yield from ("", heading)
            yield from (_named(what) + _wrapped(do, 2 + WIDTH, 0) for what, do in some)


def _named(what: str) -> str:
    """The column of the name; a long one has a line of its own."""
    return f"  {what:{WIDTH}}" if len(what) < WIDTH else f"  {what}\n  {'':{WIDTH}}"


def _wrapped(text: str, first: int, indent: int) -> str:
    """`text` from column `first` on, over as many lines as it takes; all but the first begin `indent` further."""
    wrapper = textwrap.TextWrapper(LINE, break_long_words=False, break_on_hyphens=False)  # paths stay whole
    wrapper.initial_indent, wrapper.subsequent_indent = " " * first, " " * (first + indent)
    lines = wrapper.wrap(text)
    return "\n".join(lines)[first:]


def sentence(error: BaseException) -> str:
    """What an error says, in a line; of errors that are neither for the user nor the system's with their type."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return one_line(f"{error.filename}: {error.strerror.lower()}")
    said = one_line(next(iter(str(error).strip().splitlines()), ""))[:300]
    return said if isinstance(error, UserError) else f"{type(error).__name__}: {said}".removesuffix(": ")


class _Examiner:
    """A process that looks, one check after another.

    It is replaced by another once it has failed, died or hung, and when it has taken a GPU: those that a check starts,
    and the next check, are to find it free.
    """

    process: SpawnProcess | None = None

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end()

    def look(self, check: Check, left: float) -> Finding:
        """What comes of a check within its time, or within what is `left`."""
        if left <= 0:
            return Finding(NOTED, "no time was left for it", QUIET)
        finding, spent = self._ask(self.process or self._begin(), check, left)
        if spent:
            self._end()
        return finding if finding.do or finding.state in (READY, LEFT_OUT) else finding._replace(do=check.remedy)

    def _ask(self, process, check: Check, left: float) -> tuple[Finding, bool]:
        """The finding, and whether the process is to be replaced."""
        with contextlib.suppress(BrokenPipeError):  # it has died: the answer says how
            self.pipe.send((check.look, check.args))
        if not self.pipe.poll(min(check.seconds, left)):
            if left < check.seconds:
                return Finding(NOTED, f"it had not ended after {human_time(left)}, when the time was over", QUIET), True
            return Finding(NOT_READY, f"it did not end within {human_time(check.seconds)}"), True
        try:
            return _answer(self.pipe, process)
        except UserError as error:
            return Finding(NOT_READY, str(error)), True

    def _begin(self) -> SpawnProcess:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, str(self.folder)))
        self.process.start()
        theirs.close()
        return self.process

    def _end(self) -> None:
        """End it and all that it has started."""
        if self.process is not None:
            assert self.process.pid is not None
            self.pipe.close()  # it ends by itself, unless it hangs
            self.process.join(timeout=1)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()  # before it had a group of its own
            self.process.join()
            self.process = None


def _serve(pipe: multiprocessing.connection.Connection, folder: str) -> None:
    """What the examiner's process does: in a group of its own, with its files in `folder`, where its words go, too."""
    os.setsid()
    _start_as_a_command()
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    log = os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    with contextlib.suppress(EOFError):  # nobody asks any more
        while True:
            asked = pipe.recv_bytes()
            _tell(pipe, partial(_looked, asked))


def _start_as_a_command() -> None:
    """Let loaders fork their workers, as in a command: a spawned process would have them spawned, too."""
    multiprocessing.set_start_method(None, force=True)


def _looked(asked: bytes) -> tuple[Finding, bool]:
    """What a look finds, and whether it has taken a GPU."""
    look, args = pickle.loads(asked)  # imports its module, which may fail as it may itself
    finding = look(*args)
    torch = sys.modules.get("torch")
    return finding, torch is not None and torch.cuda.is_initialized()


def _tell(pipe, work: Callable[[], Any]) -> None:
    """Send what `work` returns, or the sentence of what it raises."""
    try:
        answer = (True, work())
    except BaseException as error:
        answer = (False, sentence(error))
    pipe.send(answer)


def _answer(pipe, process) -> Any:
    """What was sent by `_tell`.

    Raises:
        UserError: the sentence that came instead, or how the process ended.
    """
    try:
        fine, answer = pipe.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        code = process.exitcode
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        raise UserError(f"its process was ended {how}") from None
    if not fine:
        raise UserError(answer)
    return answer


def together(processes: int, work: Callable[..., Any], *args) -> list:
    """What `work(*args)` returns in each of so many processes, which know of each other as torchrun's do.

    Numbers and arrays, no tensors: a tensor stays in its process, which is gone.

    Raises:
        UserError: what the first to fail says; the others are ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    started: dict[Any, tuple[int, SpawnProcess]] = {}
    for rank in range(processes):
        pipe, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_rank, args=(theirs, rank, processes, port, work, args))
        process.start()
        theirs.close()
        started[pipe] = rank, process
    answers: dict[int, Any] = {}
    try:
        while len(answers) < processes:
            waiting = [pipe for pipe, (rank, _) in started.items() if rank not in answers]
            for ready in multiprocessing.connection.wait(waiting):
                rank, process = started[ready]
                answers[rank] = _answer(ready, process)
    finally:
        for _, process in started.values():
            process.kill()
            process.join()
    return [answers[rank] for rank in range(processes)]


def _rank(pipe, rank: int, processes: int, port: int, work, args) -> None:
    """One of them, with the environment and the single thread that torchrun would give it."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    _start_as_a_command()
    if processes > 1 and (torch := sys.modules.get("torch")):  # `work` has imported it, or does not need it
        torch.set_num_threads(1)
    _tell(pipe, lambda: work(*args))
