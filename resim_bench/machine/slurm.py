"""A script for Slurm: an array of jobs that continue by themselves, sized by a plan's measurements."""

import math
import shlex
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from resim_bench import experiments
from resim_bench.errors import UserError
from resim_bench.machine import estimate
from resim_bench.machine.estimate import Machine, Measured, Run
from resim_bench.machine.schedule import Job

MARGIN = 1.5  # of time and memory, over the estimate
WORKER = 2**30  # bytes of a loader's worker
SHORTEST = 600  # seconds that a job asks for at least


class Array(NamedTuple):
    """The jobs of a room, and what each asks for.

    Attributes:
        room: `pretrain` or `transfer`.
        jobs: one a task.
        processes: tasks of Slurm's in a job, one a GPU.
        cores: of a process.
        memory: bytes of the host, of a job.
        seconds: that a job may take before it is cut off, and goes on later.
    """

    room: str
    jobs: list[Job]
    processes: int
    cores: int
    memory: float
    seconds: float


def with_backbones(jobs: Iterable[Job]) -> list[Job]:
    """The jobs with a transfer for each backbone that a row pairs with the protocol, where none is named.

    Raises:
        UserError: no row does.
    """
    found: list[Job] = []
    for job in jobs:
        named = job.room == "pretrain" or job.backbone
        backbones = [] if named else experiments.paired_with(job.id)
        if not named and not backbones:
            raise UserError(f"no row of a table pairs a backbone with {job.id}: name a table, or another protocol")
        found += [job] if named else [job._replace(backbone=backbone) for backbone in backbones]
    return list(dict.fromkeys(found))


def arrays(jobs: Iterable[Job], measurements: dict[Run, Measured], machine: Machine, hours=None) -> list[Array]:
    """An array a room, pre-trainings first; its jobs ask for what the largest of them needs.

    Args:
        jobs: of which each has a measurement.
        measurements: see `estimate.measure_all`.
        machine: of one job.
        hours: at most, of a job at a time.
    """
    of = {(run.room, run.id): measured for run, measured in measurements.items()}
    found = []
    for room in ("pretrain", "transfer"):
        chosen = [job for job in jobs if job.room == room]
        if chosen:
            facts = [of[job.room, job.id] for job in chosen]
            processes = min(estimate.width(m, machine) for m in facts)
            narrowed = machine._replace(processes=processes)
            longest = MARGIN * max(estimate.seconds(m, narrowed) for m in facts)
            host = max(m.host + m.workers * WORKER for m in facts)
            found.append(
                Array(
                    room,
                    chosen,
                    processes,
                    1 + max(m.workers for m in facts),
                    MARGIN * processes * host,
                    min(max(longest, SHORTEST), hours * 3600 if hours else math.inf),
                )
            )
    return found


def script(arrays: Sequence[Array], machine: Machine, options: Sequence[str] = (), partition: str | None = None) -> str:
    """The script: started by bash it submits its arrays, each behind the one before; as a task it runs one job.

    Args:
        arrays: see above.
        machine: that was measured.
        options: of every command, such as `--data DIR`.
        partition: of Slurm's.
    """
    where = f"#SBATCH --partition={shlex.quote(partition)}\n" if partition else ""
    gpu = "" if machine.gpu else "# No GPU was at hand: each counts as this CPU, so the times are far too long.\n"
    return _SCRIPT.format(
        partition=where,
        measured=f"# Times and memory: {MARGIN:g} times what was measured on {machine.name}.\n{gpu}",
        submissions="\n".join(_submission(array, arrays[:i]) for i, array in enumerate(arrays)),
        cases="\n".join(_case(array) for array in arrays),
        options="".join(f" {shlex.quote(option)}" for option in options),
    )


# USR1 and not TERM, which scancel sends, too: what is cancelled has to stay so.
_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=resim-bench
#SBATCH --nodes=1
#SBATCH --output=slurm-%x-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
{partition}# Written by `resim-bench slurm`. `bash FILE` submits it, beside data/ and work_dirs/, resim-bench on PATH.
# A job whose time is over goes on from its last checkpoint. Submitted again, it leaves out what is done.
{measured}set -euo pipefail

if [ -z "${{SLURM_ARRAY_TASK_ID:-}}" ]; then
{submissions}
  exit
fi

case $1 in
{cases}
esac
read -ra job <<< "${{jobs[SLURM_ARRAY_TASK_ID]}}"
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 40000))  # several jobs may be on a node
export SRUN_CPUS_PER_TASK=${{SLURM_CPUS_PER_TASK:-1}}  # which srun does not inherit since Slurm 22.05
trap 'scontrol requeue "$SLURM_JOB_ID"; wait' USR1
srun --kill-on-bad-exit=1 resim-bench "$1" "${{job[@]}}" --resume --launcher slurm{options} &
wait $!
"""


def _submission(array: Array, before: Sequence[Array]) -> str:
    """The lines that submit an array."""
    asked = [
        f"--array=0-{len(array.jobs) - 1}",
        f"--ntasks-per-node={array.processes}",
        f"--gres=gpu:{array.processes}",
        f"--cpus-per-task={array.cores}",
        f"--mem={math.ceil(array.memory / 2**30)}G",
        f"--time={walltime(array.seconds)}",
        *(f'--dependency="afterok:${{{earlier.room}%%;*}}" --kill-on-invalid-dep=yes' for earlier in before),
    ]
    return f'  {array.room}=$(sbatch --parsable {" ".join(asked)} "$0" {array.room})\n' + (
        f'  echo "{array.room}: {len(array.jobs)} jobs, array ${array.room}"'
    )


def _case(array: Array) -> str:
    """The jobs of an array, by the number of the task."""
    words = (
        f"  '{job.id}{f' --backbone {job.backbone}' if job.backbone else ''} --seed {job.seed}'" for job in array.jobs
    )
    return "\n".join([f"{array.room}) jobs=(", *words, ") ;;"])


def walltime(seconds: float) -> str:
    """As Slurm writes it, days-hours:minutes:seconds, up to whole minutes."""
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 1440}-{minutes % 1440 // 60:02}:{minutes % 60:02}:00"
