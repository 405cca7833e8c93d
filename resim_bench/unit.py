"""One seed of a table: all its pre-trainings and transfers, as many at a time as there are cores, one thread each.

A small network gains little from a second thread and a detector nothing, so several trainings beside each other are
almost as many times as fast. And as no training ever has more than one thread, a seed's numbers do not depend on how
many cores there are.
"""

import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from resim_bench.errors import UserError
from resim_bench.experiments import Experiment

COMMAND = (sys.executable, "-m", "resim_bench.cli")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def run(experiments: Iterable[Experiment], seed: int, work_dir: Path) -> None:
    """Pre-train and transfer with one seed; what is finished is skipped, what was cut off continues.

    Each training is a `resim-bench` of its own; what it says is printed line by line behind its name.

    Raises:
        UserError: what the first that failed said; the others are stopped, and continue the next time.
    """
    experiments = list(experiments)
    common = ["--seed", str(seed), "--work-dir", str(work_dir), "--resume"]
    running: list[subprocess.Popen] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        # Pre-trainings come first in the queue: a transfer that waits for one never keeps it from starting.
        trained = {
            id: pool.submit(_say_and_do, id, ["pretrain", id, *common], running)
            for id in dict.fromkeys(pair.pretrain_id for pair in experiments)
        }
        transfers = [pool.submit(_transfer, pair, trained, common, seed, running) for pair in experiments]
        try:
            for done in as_completed([*trained.values(), *transfers]):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise


def _transfer(pair: Experiment, trained: dict[str, Future], common: list[str], seed: int, running: list) -> None:
    trained[pair.pretrain_id].result()
    backbone = ["--backbone", pair.pretrain_id, "--pretrain-seed", str(seed)]
    _say_and_do(f"{pair.pretrain_id}, {pair.transfer_id}", ["transfer", pair.transfer_id, *backbone, *common], running)


def _say_and_do(name: str, arguments: list[str], running: list) -> None:
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env=os.environ | ONE_THREAD,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    running.append(process)
    line = ""
    assert process.stdout is not None
    for line in process.stdout:
        print(f"{name:32}{line.rstrip()}", flush=True)
    if process.wait():
        raise UserError(line.strip().removeprefix("resim-bench: ") or f"{name} stopped with code {process.returncode}")
