"""The script for Slurm: bash reads it, and a stand-in for Slurm runs it."""

import os
import subprocess
import time

import pytest

from resim_bench.cli import main
from resim_bench.errors import UserError
from resim_bench.machine import estimate, schedule, slurm
from resim_bench.machine.schedule import Job
from tests.resim_bench.test_estimate import CPU, GPU, PROBE

JOBS = [Job("pretrain", "a", 0), Job("pretrain", "b", 0), Job("transfer", "voc-full", 3, "b")]
# sbatch runs every task of an array at once; srun and scontrol write down what they are asked.
STUBS = {
    "sbatch": """echo "sbatch $*" >> log
tasks=
for word; do case $word in --array=0-*) tasks=${word#--array=0-} ;; --*) ;; *) break ;; esac; shift; done
for i in $(seq 0 $tasks); do SLURM_ARRAY_TASK_ID=$i SLURM_JOB_ID=7$i bash "$@" >&2; done
echo "7;cluster"
""",
    "srun": """echo "srun $*" >> log; echo "$MASTER_PORT $SRUN_CPUS_PER_TASK" >> ports
sleep "${LASTS:-0}"; exit "${FAILS:-0}"
""",
    "scontrol": 'echo "scontrol $*" >> log',
}


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script of three jobs, in a folder with stand-ins for Slurm's commands first on PATH."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name, body in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    facts = {estimate.Run(job.room, job.id, 1): PROBE._replace(group=32, host=2**30) for job in JOBS}
    file = tmp_path / "array.sh"
    arrays = slurm.arrays(JOBS, facts, GPU._replace(processes=8))
    file.write_text(slurm.script(arrays, GPU, ["--data", "my data"], "long"))
    return file


def log(folder) -> list[str]:
    return (folder / "log").read_text().splitlines()


def test_bash_reads_it_and_slurm_runs_every_job(script, tmp_path):
    subprocess.run(["bash", "-n", script], check=True)
    said = subprocess.run(["bash", script], check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == ["pretrain: 2 jobs, array 7;cluster", "transfer: 1 jobs, array 7;cluster"]
    submitted = [line for line in log(tmp_path) if line.startswith("sbatch")]
    assert "--array=0-1 --ntasks-per-node=8 --gres=gpu:8 --cpus-per-task=9" in submitted[0]
    assert "--dependency" not in submitted[0]
    assert "--array=0-0" in submitted[1] and "--dependency=afterok:7 " in submitted[1]
    rest = "--resume --launcher slurm --data my data"
    assert [line for line in log(tmp_path) if line.startswith("srun")] == [
        f"srun --kill-on-bad-exit=1 resim-bench pretrain a --seed 0 {rest}",
        f"srun --kill-on-bad-exit=1 resim-bench pretrain b --seed 0 {rest}",
        f"srun --kill-on-bad-exit=1 resim-bench transfer voc-full --backbone b --seed 3 {rest}",
    ]


def test_jobs_of_a_node_do_not_meet_and_have_their_cores(script, tmp_path):
    subprocess.run(["bash", script], check=True, capture_output=True, env=os.environ | {"SLURM_CPUS_PER_TASK": "9"})
    assert (tmp_path / "ports").read_text().splitlines()[:2] == ["20070 9", "20071 9"]


def task(script, **environment):
    env = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_ID": "42", "PATH": f"{script.parent}:/usr/bin:/bin", **environment}
    return subprocess.Popen(["bash", script, "pretrain"], env=env)


def test_a_job_whose_time_is_over_is_queued_again(script, tmp_path):
    """And is no success, for which transfers would start."""
    process = task(script, LASTS="1")
    deadline = time.monotonic() + 20
    while not (tmp_path / "log").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(10)  # USR1
    assert process.wait(20) != 0 and log(tmp_path)[-1] == "scontrol requeue 42"


def test_a_failure_is_one(script, tmp_path):
    assert task(script, FAILS="3").wait(20) == 3
    assert not [line for line in log(tmp_path) if line.startswith("scontrol")]


def test_what_slurm_is_told(script):
    told = script.read_text()
    for line in ("--requeue", "--signal=B:USR1@120", "--open-mode=append", "--partition=long"):
        assert f"#SBATCH {line}\n" in told
    before = told[: told.index("set -euo")]
    assert all(line.startswith("#") for line in before.splitlines()), "Slurm stops reading at the first command"


def test_time_and_memory_are_the_estimate_s_with_a_margin():
    facts = {estimate.Run("pretrain", "a", 1): PROBE._replace(group=32, host=2**30)}
    jobs, eight = JOBS[:1], GPU._replace(processes=8)
    (array,) = slurm.arrays(jobs, facts, eight)
    assert array.seconds == 1.5 * estimate.seconds(PROBE, eight) and array.memory == 1.5 * 8 * 9 * 2**30
    assert slurm.arrays(jobs, facts, GPU._replace(processes=12))[0].processes == 8
    assert slurm.arrays(jobs, facts, GPU, hours=1)[0].seconds == 3600
    assert [slurm.walltime(s) for s in (1, 3600, 86400 + 61)] == ["0-00:01:00", "0-01:00:00", "1-00:02:00"]
    assert "No GPU was at hand" in slurm.script([array], CPU) and "No GPU" not in slurm.script([array], GPU)


def test_a_protocol_is_a_job_for_each_row():
    found = slurm.with_backbones(schedule.jobs(["voc-full"]))
    assert Job("transfer", "voc-full", 0, "in100-moco-v2") in found and all(job.backbone for job in found)
    with pytest.raises(UserError, match="no row of a table pairs a backbone with voc-frozen-none"):
        slurm.with_backbones([Job("transfer", "voc-frozen-none", 0)])


def test_the_command_prints_it(monkeypatch, capsys):
    monkeypatch.setattr(estimate, "measured", lambda run, measure, **options: PROBE)
    assert main(["slurm", "mini", "--gpus", "2", "--trials", "2", "--hours", "4"]) == 0
    text = capsys.readouterr().out
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert "mini-voc-full --backbone mini-resim-c4 --seed 1" in text and "--launcher slurm --work-dir work_dirs" in text
    assert main(["slurm", "mini", "--gpus", "2", "--data", "d"]) == 2
    assert "--data would be that of pre-trainings and of transfers: put or link both" in capsys.readouterr().err
    assert main(["slurm", "in100-moco-v2", "--data", "d"]) == 2
    assert "there is no GPU here: say by --gpus how many a node has" in capsys.readouterr().err
