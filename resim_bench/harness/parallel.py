"""Trials that are run at a time: pre-trainings and what tests them, as many as there are cores, one thread each.

A small network gains little from a second thread and a detector nothing, so several trainings beside each other are
almost as many times as fast. And as no training ever has more than one thread, a seed's numbers do not depend on how
many cores there are.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from resim_bench import experiments
from resim_bench.errors import UserError
from resim_bench.experiments import Trial

COMMAND = (sys.executable, "-P", "-m", "resim_bench.program")  # -P: nothing of the current folder is imported
ONE_THREAD = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def run(trials: Iterable[Trial], work_dir: Path, data: Path | None = None, tests_dir: Path | None = None) -> None:
    """Pre-train, and transfer, probe or read; what is finished is skipped, what was cut off continues.

    Each training is a `resim-bench` of its own; what it says is printed line by line behind its seed and its name.

    Args:
        data: the folder of what tests; by default their protocols'.
        tests_dir: the work directory of what tests; by default that of the pre-trainings.

    Raises:
        UserError: what the first that failed said; the others are stopped, and continue the next time.
        KeyboardInterrupt: Ctrl-C or SIGTERM, which no training outlives either.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    trials = list(trials)
    trainings = _Trainings()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        # Pre-trainings come first in the queue: a transfer that waits for one never keeps it from starting.
        trained = {
            (id, seed): pool.submit(trainings.run, f"{seed} {id}", ["pretrain", id, *_common(seed, work_dir)])
            for id, seed in dict.fromkeys((trial.experiment.pretrain_id, trial.seed) for trial in trials)
        }
        tests = [
            pool.submit(
                _test,
                trial,
                trained[trial.experiment.pretrain_id, trial.seed],
                _arguments(trial, work_dir, tests_dir or work_dir, data),
                trainings,
            )
            for trial in trials
        ]
        try:
            for done in as_completed([*trained.values(), *tests]):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            trainings.stop()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)


class _Trainings:
    """Those that run, each in a process of its own. None outlives the stop."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen] = []
        self.stopped = False

    def run(self, name: str, arguments: list[str]) -> None:
        """Run one training in a process of its own; each line of its output is printed behind its name."""
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=os.environ | ONE_THREAD,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        if self.stopped:
            process.terminate()
        line = ""
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{name:42}{line.rstrip()}", flush=True)
        if process.wait() < 0 and not self.stopped:
            ended_by = signal.Signals(-process.returncode).name
            raise UserError(f"the system ended {name} ({ended_by}): see its memory, and start again")
        if process.returncode:
            said = line.strip().removeprefix("resim-bench: ")
            raise UserError(said or f"{name} stopped with code {process.returncode}")

    def stop(self) -> None:
        """End those that run, and any that is about to."""
        self.stopped = True
        for process in self.processes:
            process.terminate()


def _common(seed: int, work_dir: Path) -> list[str]:
    return ["--seed", str(seed), "--work-dir", str(work_dir), "--resume"]


def _test(trial: Trial, trained: Future, arguments: list[str], trainings: _Trainings) -> None:
    """Transfer, probe or read the trial's backbone, when it is there."""
    trained.result()
    trainings.run(f"{trial.seed} {', '.join(trial.experiment)}", arguments)


def _arguments(trial: Trial, work_dir: Path, tests_dir: Path, data: Path | None) -> list[str]:
    """The command that tests a trial's backbone."""
    (backbone, transfer_id), seed = trial
    if tests_dir != work_dir:
        from resim_bench.backbone import path  # and torch with it

        backbone = str(path(work_dir, backbone, seed))
    common = ["--pretrain-seed", str(seed), *_common(seed, tests_dir)]
    arguments = {
        "transfer": ["transfer", transfer_id, "--backbone", backbone, *common],
        "probe": ["probe", backbone, "--on", transfer_id, *common],
        "judge": ["judge", backbone, "--on", transfer_id, "--quiet", *common[:2], "--work-dir", str(tests_dir)],
    }[experiments.command_of(transfer_id)]
    return [*arguments, "--data", str(data)] if data else arguments
