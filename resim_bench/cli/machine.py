"""Commands that try and measure the machine: doctor, plans and benchmarks."""

import functools
import importlib.metadata
import itertools
import json
import platform
import subprocess
import tempfile
from pathlib import Path

from resim_bench.cli import datasets
from resim_bench.errors import UserError
from resim_bench.harness import parallel, runs


def show_environment(args) -> None:
    """Print what a report of a problem needs: versions, device, commit, which operators there are."""
    import torch

    from transfer import mmcv_ops

    found = runs.environment()
    rows = {
        "suite": f"{importlib.metadata.version('resim-bench')}, commit {found['commit']}",
        "python": f"{found['versions']['python']} on {platform.platform()}",
        **{name: found["versions"][name] for name in runs.PACKAGES if name != "resim-bench"},
        "device": f"{found['device']}, {found['threads']} threads",
        "GPU": f"CUDA {torch.version.cuda}" if torch.cuda.is_available() else "none",
        "mmcv's operators": "compiled" if mmcv_ops.is_compiled() else "torchvision's in their place",
    }
    for name, value in rows.items():
        print(f"{name:20}{value}")


def examine(args) -> int:
    """Look at everything that a run needs, here, and say what is ready and what is not; 1 where anything is not."""
    from resim_bench.data import check
    from resim_bench.machine import doctor

    layouts = {folder: check.guess(folder) for folder in args.data}

    def machine(folder):
        from resim_bench.machine import hardware

        return hardware.checks(args.work_dir, args.data[0] if args.data else Path("data"))

    def pre_training(folder):
        from pretrain import doctor

        return doctor.checks(folder)

    def detection(folder):
        from pretrain.doctor import trained
        from transfer import doctor

        return doctor.checks(folder, trained(folder))

    def data(folder):
        return datasets.looks(layouts)

    sections = {"this machine": machine, "pre-training": pre_training, "detection": detection, "data": data}
    return doctor.examine(sections)


def _measures():
    from pretrain import estimate as pretraining
    from transfer import estimate as transferring

    return {"pretrain": pretraining.measure, "transfer": transferring.measure}


def plan_runs(args) -> None:
    """Measure recipes and protocols, and print what all of it takes."""
    from resim_bench.machine import estimate

    options = {"data": args.data, "cfg_options": args.cfg_options}
    print(estimate.report(args.id, _measures(), args.trials, args.gpus, args.price, **options), end="")


def slurm_script(args) -> None:
    """Measure recipes and protocols, and print a script that submits them to Slurm."""
    from resim_bench.machine import estimate, schedule, slurm

    jobs = slurm.with_backbones(schedule.jobs(args.id, args.trials))
    if args.data and len({job.room for job in jobs}) > 1:
        raise UserError("--data would be that of pre-trainings and of transfers: put or link both below data/ instead")
    measurements = estimate.measure_all(args.id, _measures(), args.trials, data=args.data)
    machine = estimate.this_machine(args.gpus)
    if not args.gpus and not machine.gpu:
        raise UserError("there is no GPU here: say by --gpus how many a node has, or measure on a node with some")
    options = ["--work-dir", str(args.work_dir)] + (["--data", str(args.data)] if args.data else [])
    print(slurm.script(slurm.arrays(jobs, measurements, machine, args.hours), machine, options, args.partition), end="")


def _bench_data():
    from pretrain.bench import data

    return data.rows()


def _bench_step():
    from pretrain.bench import step

    return step.rows()


def _bench_ops():
    from pretrain.bench import ops
    from transfer import bench as metric

    return itertools.chain(ops.rows(), metric.rows())


def _bench_tables():
    from resim_bench.machine import timing

    def tables():
        subprocess.run([*parallel.COMMAND, "tables"], check=True, stdout=subprocess.DEVNULL)

    rounds = [(timing.seconds(tables), 1.0) for _ in range(5)]
    return [timing.compare("resim-bench tables, against a second", rounds, at_least=1)]


def _bench_growth():
    from pretrain.bench import growth
    from resim_bench.machine import timing
    from tables.bench import over_records
    from transfer import bench as metric

    yield from growth.rows()
    yield metric.growth()
    with tempfile.TemporaryDirectory() as folder:
        make = functools.partial(over_records, Path(folder))
        yield timing.grow("tables", make, (50, 500, 5000), "records", expected=1)


BENCHES = {
    "data": _bench_data,
    "step": _bench_step,
    "ops": _bench_ops,
    "tables": _bench_tables,
    "growth": _bench_growth,
}


def bench(args) -> None:
    """Measure, print the rows as they come, and write them to the work directory."""
    chosen = BENCHES if args.what == "all" else {args.what: BENCHES[args.what]}
    file = args.work_dir / f"bench-{args.what}.json"
    file.parent.mkdir(parents=True, exist_ok=True)  # what cannot be written is said before the minutes that it takes
    environment = runs.environment()
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    print(f"{environment['device']}, {environment['threads']} threads\n{versions}, commit {environment['commit']}")
    rows, header = [], ""
    for measure in chosen.values():
        for row in measure():
            if row.header not in (header, ""):
                header = row.header
                print(f"\n{header}")
            print(row.line(), flush=True)
            rows.append(row._asdict())
    file.write_text(json.dumps(environment | {"rows": rows}, indent=1) + "\n")
    print(f"\nwrote {file}")
