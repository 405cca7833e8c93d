"""What `resim-bench doctor` looks at on any machine, and how the rooms hold theirs against float64, twice, and cut off.

Each look is the same function on a GPU and on a CPU, over NCCL and over gloo.
"""

import contextlib
import importlib.metadata
import itertools
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from resim_bench import experiments, files
from resim_bench.harness import launch, runs, trace
from resim_bench.harness.checkpoint import cut_off, read_checkpoint
from resim_bench.harness.precision import Float32Hook
from resim_bench.machine import anchors, estimate, timing
from resim_bench.machine.doctor import (
    ANEW,
    NOT_READY,
    NOTED,
    READY,
    Check,
    Finding,
    leave_out,
    together,
)
from resim_bench.machine.estimate import human_bytes

NO_GPU = "no GPU is at hand"
ONE_GPU = "there is one GPU"
DRIVER = "nvidia-smi shows what the driver sees; another build of torch may fit it: pytorch.org says which"


def gpus() -> int:
    """How many are at hand."""
    return torch.cuda.device_count()


def devices() -> list[str]:
    """Those at hand by torch's names, or the CPU."""
    return [f"cuda:{number}" for number in range(gpus())] or ["cpu"]


def checks(work_dir: Path, data: Path) -> Iterator[Check]:
    """Of the machine; runs are kept in `work_dir`, images lie in `data`."""
    count = gpus()
    yield Check("versions", versions, (), ANEW)
    yield Check("GPUs", listed, (count,), DRIVER)
    yield from (Check(f"GPU {n}", gpu, (n,), DRIVER) for n in range(count))
    yield from (
        Check(f"arithmetic, {name(device)}", arithmetic, (device,), DRIVER if count else ANEW) for device in devices()
    )
    if count > 1:
        remedy = "nvidia-smi -q -d PERFORMANCE,TEMPERATURE says why a GPU is slow: leave it out by CUDA_VISIBLE_DEVICES"
        yield Check("GPUs beside each other", beside, (devices(),), remedy)
    yield from _connected(count)
    yield Check("free disk", free, (work_dir,), "make room, or name another place by --work-dir")
    yield Check("writing", writing, (work_dir,), "name a place that can be written by --work-dir")
    images = data, work_dir, need("in100-moco-v2", 256, count)
    remedy = "name places that can be read and written by --data and --work-dir"
    yield Check("reading of images", reading, images, remedy)


def _connected(count: int) -> Iterator[Check]:
    """Of several processes; a GPU alone has nobody to talk to."""
    remedy = "NCCL_DEBUG=INFO says what NCCL tries; NCCL_P2P_DISABLE=1 or NCCL_IB_DISABLE=1 may go round it"
    remedy = remedy if count else "gloo has to find this host by its name: export GLOO_SOCKET_IFNAME=lo"
    what = f"all-reduce and all-gather, {'NCCL' if count else 'gloo'}"
    norm = "SyncBN against one process"
    if count == 1:
        yield from (Check(name, leave_out, (ONE_GPU,)) for name in (what, norm))
        return
    yield Check(what, collectives, (count or 2,), remedy, 120)
    if count:
        yield Check(norm, sync_batch_norm, (count,), remedy, 120)
    else:
        yield Check(norm, leave_out, (f"{NO_GPU}, and SyncBN has no CPU kernel",))


def name(device: str) -> str:
    """`GPU 0` or `CPU`."""
    kind, _, number = device.partition(":")
    return f"GPU {number}" if kind == "cuda" else "CPU"


class Need(NamedTuple):
    """Images a second that steps take, and a word on whose.

    On those of whoever published the time of a step: what a GPU at hand takes, `memory` says.
    """

    rate: float
    text: str


def need(run_id: str, batch: int, count: int) -> Need:
    """Of a recipe or protocol of which a time is published, and its batch."""
    anchor = anchors.of(run_id)
    assert anchor is not None, run_id
    rate = batch / anchor.step / anchor.gpus * max(count, 1)
    return Need(rate, f"{rate:,.0f}/s feed {max(count, 1)} {anchor.device}")


def versions() -> Finding:
    """Hold the installed packages against the pins: of the suite itself, and of what these need."""
    own = [pin for pin in importlib.metadata.requires("resim-bench") or () if ";" not in pin]
    constraints = experiments.ROOT / "constraints.txt"
    others = constraints.read_text().split() if constraints.is_file() else []
    wrong, other = (list(filter(None, map(_differs, pins))) for pins in (own, {*others} - {*own}))
    other = [said for said in other if not said.endswith("not installed")]  # of an option, or of another platform
    if wrong:
        return Finding(NOT_READY, ", ".join(wrong))
    said = f"Python {platform.python_version()}, torch {torch.__version__}, commit {runs.commit()[:7]}"
    if other:
        return Finding(NOTED, f"{said}; {', '.join(sorted(other))}")
    return Finding(READY, f"{said}; as pinned")


def _differs(pin: str) -> str:
    package, _, wanted = pin.partition("==")
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"{package} {wanted} is not installed"
    return "" if found.split("+")[0] == wanted else f"{package} {found} instead of {wanted}"


def listed(count: int) -> Finding:
    """Whether torch finds the GPUs that the driver does, where none is hidden from it."""
    tool = shutil.which("nvidia-smi")
    said = subprocess.run([tool, "--list-gpus"], capture_output=True, text=True).stdout if tool else ""
    there = sum(line.startswith("GPU ") for line in said.splitlines())
    if count < there and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return Finding(NOT_READY, f"the driver lists {there}, torch {torch.__version__} finds {count}")
    return Finding(READY, f"{count}, CUDA {torch.version.cuda}") if count else leave_out(NO_GPU)


def gpu(number: int) -> Finding:
    """What it is, and whether it is free."""
    unused, memory = torch.cuda.mem_get_info(number)
    said = f"{torch.cuda.get_device_name(number)}, {human_bytes(memory)}, of which {human_bytes(unused)} are free"
    if unused < 0.9 * memory:
        return Finding(NOTED, said, "nvidia-smi says which process holds the rest: end it")
    return Finding(READY, said)


ALLOWED = {"float32": 1e-5, "tf32": 1e-2, "bfloat16": 3e-2}  # relative, of what is computed in this precision


def arithmetic(device: str) -> Finding:
    """A matrix product and a convolution in each precision against float64 on the CPU, and the product's speed."""
    said = []
    for precision in ("float32", "tf32", "bfloat16") if device != "cpu" else ("float32", "bfloat16"):
        error = max(against_float64(work, inputs, device, precision) for work, inputs in _products())
        if not error <= ALLOWED[precision]:
            return Finding(NOT_READY, f"{precision} is {error:.0e} from float64, and {ALLOWED[precision]:.0e} at most")
        said.append(f"{precision} {rate(device, precision) / 1e12:,.2g} ({error:.0e})")
    return Finding(READY, f"TFLOP/s (error): {', '.join(said)}".replace("tf32", "TF32"))


def _products():
    """Operations and their inputs; what is small enough for float64 on a CPU."""
    rng = torch.Generator().manual_seed(0)
    yield torch.matmul, [torch.randn(size, generator=rng) for size in ((256, 2048), (2048, 256))]
    convolution = [torch.randn(size, generator=rng) for size in ((4, 64, 28, 28), (64, 64, 3, 3))]
    yield lambda x, w: F.conv2d(x, w, padding=1), convolution


@contextlib.contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Inside, matrix products and convolutions of float32 are strict, or tf32 where that is the precision."""
    hook = Float32Hook(tf32=precision == "tf32")
    hook.before_run(None)
    try:
        yield
    finally:
        hook.after_run(None)


def against_float64(
    work: Callable[..., Tensor], inputs: Sequence[Tensor], device: str, precision: str = "float32"
) -> float:
    """How far `work` and its gradients are from the same in float64 on the CPU, in parts of the largest value.

    Args:
        work: of the inputs; its result is summed with random weights for the gradient by those that are float32.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    with products_in(precision):
        found = _with_gradients(work, inputs, device, dtype)
    return apart(found, _with_gradients(work, inputs, "cpu", torch.float64))


def _with_gradients(work, inputs, device, dtype) -> list[Tensor]:
    given = [x.to(device, dtype if x.dtype == torch.float32 else x.dtype, copy=True) for x in inputs]
    floats = [x.requires_grad_() for x in given if x.is_floating_point()]
    result = work(*given)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (result * weights.to(result)).sum().backward()
    return [result.detach(), *(x.grad for x in floats if x.grad is not None)]


def apart(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """The largest difference between tensors, in parts of the largest value of each that is exact."""
    pairs = [(ours.detach().cpu().double(), theirs.cpu().double()) for ours, theirs in zip(found, exact, strict=True)]
    found = [(ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12) for ours, theirs in pairs]
    return float(torch.stack(found).max().nan_to_num(torch.inf))


def rate(device: str, precision: str) -> float:
    """Floating-point operations a second of a large matrix product."""
    size = 8192 if device != "cpu" else 1024
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    one = torch.ones(size, size, device=device, dtype=dtype)
    with products_in(precision):
        taken = [_seconds(lambda: one @ one, device) for _ in range(4)][1:]
    return 2 * size**3 / min(taken)


def _seconds(work, device) -> float:
    with torch.cuda.device(device) if device != "cpu" else contextlib.nullcontext():
        return timing.seconds(work)


def beside(names: Sequence[str]) -> Finding:
    """Whether a GPU is much slower than the others: the slowest sets the pace of all."""
    rates = [rate(device, "float32") for device in names]
    slowest, usual = min(rates), statistics.median(rates)
    said = f"the slowest, {name(names[rates.index(slowest)])}, has {slowest / usual:.0%} of the others' speed"
    return Finding(READY if slowest > 0.9 * usual else NOTED, said)


GRADIENTS = 28_000_000  # numbers, of ResNet-50 with MoCo-v2's head: what a step sums over processes
LONG = 0.05  # seconds for that, on GPUs: a quarter of a step of MoCo-v2's authors


def collectives(processes: int) -> Finding:
    """Sum and gather over all processes, and how long the gradients of a step take."""
    found = together(processes, _collect)
    expected = [sum(range(1, processes + 1)), list(range(1, processes + 1))]
    if any(answer[:2] != expected for answer in found):
        return Finding(NOT_READY, f"{processes} processes sum and gather {found[0][:2]} instead of {expected}")
    seconds = max(answer[2] for answer in found)
    said = f"{processes} processes agree; the gradients of ResNet-50 take {1000 * seconds:.0f} ms"
    return Finding(NOTED if seconds > LONG and torch.cuda.is_available() else READY, said)


def _collect() -> list:
    """The sum and the list of all ranks, counted from 1, and the seconds of a large sum."""
    launch.join_processes("pytorch")
    device = own_device()
    number = torch.full((1,), dist.get_rank() + 1.0, device=device)
    parts = [torch.empty_like(number) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, number)
    dist.all_reduce(number)
    large = torch.zeros(GRADIENTS, device=device)
    taken = [_seconds(lambda: dist.all_reduce(large), device) for _ in range(3)]
    return [number.item(), torch.cat(parts).tolist(), min(taken)]


def own_device() -> str:
    """Of a process that `together` has started."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else "cpu"


IMAGES, CHANNELS = 4, 8  # of a process, of what SyncBN is tried on


def sync_batch_norm(processes: int) -> Finding:
    """SyncBN over processes against batch norm of all their images in one: values, gradients, statistics."""
    found = together(processes, _normalise, nn.SyncBatchNorm)
    one = _normalised(nn.BatchNorm2d(CHANNELS).double(), _maps(processes).double())
    values, gradients, means, variances = zip(*found, strict=True)
    of_images = [np.concatenate(parts) for parts in (values, gradients)]  # of which each process has its own
    of_all = [np.stack(parts) for parts in (means, variances)]
    ours = [torch.from_numpy(array) for array in (*of_images, *of_all)]
    error = apart(ours, [*one[:2], *(statistic.expand(processes, -1) for statistic in one[2:])])
    return Finding(READY if error <= 1e-4 else NOT_READY, f"{processes} processes, {error:.0e} from one")


def _maps(processes: int) -> Tensor:
    return torch.randn(processes * IMAGES, CHANNELS, 6, 6, generator=torch.Generator().manual_seed(0)) + 1


def _normalise(norm) -> list[np.ndarray]:
    launch.join_processes("pytorch")
    part = slice(dist.get_rank() * IMAGES, (dist.get_rank() + 1) * IMAGES)
    device = own_device()
    found = _normalised(norm(CHANNELS).to(device), _maps(dist.get_world_size())[part].to(device))
    return [tensor.cpu().numpy() for tensor in found]


def _normalised(norm: nn.Module, maps: Tensor) -> list[Tensor]:
    """Values, the gradient by the maps, and running mean and variance."""
    maps.requires_grad_()
    values = norm(maps)
    (values.square() * values).mean(dim=(1, 2, 3)).sum().backward()
    return [values.detach(), maps.grad, norm.running_mean, norm.running_var]


ROUNDING = "some kernels add in any order: the same seed gives the same numbers up to rounding"


def twice(step: Callable[[], dict[str, Tensor]]) -> Finding:
    """Whether a step, called twice, gives the same losses and gradients bit for bit."""
    first, second = ({key: value.detach().clone() for key, value in step().items()} for _ in range(2))
    differing = [key for key in first if not torch.equal(first[key], second[key])]
    if not differing:
        return Finding(READY, f"{len(first)} losses and gradients, the same bit for bit")
    error = apart([second[key] for key in differing], [first[key] for key in differing])
    said = f"{len(differing)} of {len(first)} losses and gradients differ, by {error:.0e}"
    return Finding(NOTED, said, ROUNDING) if error < 1e-3 else Finding(NOT_READY, said)


RUN, CHECKPOINT = 1_000_000_000, 400_000_000  # bytes that a run leaves and that a checkpoint has, of ResNet-50, about


def free(work_dir: Path) -> Finding:
    """Whether every run that a row names, once, has room."""
    unused = shutil.disk_usage(_standing(work_dir)).free
    rows = [pair for pair in experiments.experiments() if pair.transfer_id.startswith(("voc-", "coco-"))]
    needed = RUN * (len({pair.pretrain_id for pair in rows}) + len(rows))
    said = f"{human_bytes(unused)}; all rows of the paper's, once, leave {human_bytes(needed)}"
    if unused < 3 * RUN:  # a pre-training, a transfer, and what is being written
        return Finding(NOT_READY, said)
    return Finding(READY if unused >= needed else NOTED, said)


def _standing(place: Path) -> Path:
    """The place itself, or the first above it that there is."""
    place = Path(place).absolute()
    return next(folder for folder in (place, *place.parents) if folder.is_dir())


WRITTEN = 2**27  # bytes


def writing(work_dir: Path) -> Finding:
    """How fast a file gets onto the disk; a checkpoint is to cost a twentieth of the minute between two."""
    content = os.urandom(2**20)
    with files.scratch(_standing(work_dir) / "doctor") as folder:
        started = time.perf_counter()
        with open(folder / "file", "wb") as stream:
            for _ in range(WRITTEN // len(content)):
                stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        speed = WRITTEN / (time.perf_counter() - started)
    seconds = CHECKPOINT / speed
    said = f"{human_bytes(speed)}/s; a checkpoint, one a minute, takes {seconds:.1f} s"
    return Finding(READY if seconds < 3 else NOTED, said, "name a faster disk by --work-dir")


READ, SIZE, READERS = 256, 110_000, 8  # images that are read; bytes of one, and at a time


def reading(data: Path, work_dir: Path, needed: Need) -> Finding:
    """How many images a second come from the disk rather than from memory: of those in `data`, or stand-ins."""
    found = list(itertools.islice(_images(data), 50 * READ))
    if found:
        chosen = random.Random(0).sample(found, min(READ, len(found)))
        return _read(chosen, f"of {data}", needed)
    with files.scratch(_standing(work_dir) / "doctor") as folder:
        chosen = [str(folder / str(number)) for number in range(READ)]
        for file in chosen:
            Path(file).write_bytes(os.urandom(SIZE))
            files.sync(Path(file))
        return _read(chosen, f"stand-ins for lack of any in {data}", needed)


def _images(folder: Path) -> Iterator[str]:
    for top, _, names in os.walk(folder, followlinks=True):
        yield from (os.path.join(top, file) for file in names if file.lower().endswith((".jpg", ".jpeg")))


def _read(chosen: Sequence[str], which: str, needed: Need) -> Finding:
    for file in chosen:
        _forget(file)
    started = time.perf_counter()
    with ThreadPoolExecutor(READERS) as pool:
        size = sum(pool.map(lambda file: len(Path(file).read_bytes()), chosen))
    seconds = time.perf_counter() - started
    speed = len(chosen) / seconds
    said = f"{speed:,.0f} images/s, {human_bytes(size / seconds)}/s, {which}; {needed.text}"
    return Finding(READY if speed >= needed.rate else NOTED, said, "put the images on a faster disk")


def _forget(file: str) -> None:
    """Have the system read a file from its disk the next time."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def shared_memory(needed: int, place: str = "/dev/shm") -> Finding:
    """Whether what loaders hand over finds room, where torch puts it."""
    unused = shutil.disk_usage(place).free
    said = f"{human_bytes(unused)} in {place}; batches take {human_bytes(needed)}"
    return Finding(READY if unused > needed else NOT_READY, said)


def supply(dataset: Dataset, batch: int, workers: int, needed: Need, collate: Callable | None = None) -> Finding:
    """Whether loaders are fast enough: what a worker gives, and what all `workers` do.

    Args:
        dataset: indexed by (draw, index), as `harness.draws.DrawSampler` does.
        batch: images that a worker loads at a time.
    """
    by_one, by_all = (_loaded(dataset, batch, n, collate) for n in (1, workers))
    said = f"{by_one:,.0f}/s by one worker, {by_all:,.0f}/s by {workers}; {needed.text}"
    return Finding(READY if by_all >= needed.rate else NOTED, said)


def _loaded(dataset, batch, workers, collate) -> float:
    """Images a second, from the first batch on, when the workers have started."""
    draws = [(draw, draw % len(dataset)) for draw in range(8 * batch * (workers + 1))]
    batches = iter(DataLoader(dataset, batch, sampler=draws, num_workers=workers, collate_fn=collate))
    next(batches)
    started, rest = time.perf_counter(), sum(1 for _ in batches)
    return rest * batch / (time.perf_counter() - started)


def memory(run: estimate.Run, measure: Callable[..., estimate.Measured], share: dict, count: int) -> Finding:
    """Of a few iterations at the batch that each of `count` GPUs has, whether it has room, and how long they take.

    Args:
        run: a recipe or a protocol, and `measure`, its room's.
        share: the option that sets that batch.
    """
    found = estimate.measured(run, measure, cfg_options=share, counted=2)
    taken, there = found.memory + found.batch_memory, torch.cuda.mem_get_info(0)[1]
    machine = estimate.this_machine()._replace(processes=1)
    step = estimate.seconds_a_step(found, machine._replace(cores=max(1, machine.cores // count)))
    said = f"{human_bytes(taken)} of {human_bytes(there)} at {found.batch} images a GPU, {step:.2g} s a step"
    if taken > 0.95 * there:
        return Finding(NOT_READY, said)
    if step > 1.2 * found.step:
        do = "more cores, or fewer GPUs: loading takes longer than the step"
        return Finding(NOTED, f"{said}, {found.step:.2g} s without loading", do)
    return Finding(READY, said)


class Step(NamedTuple):
    """What a step's memory depends on: the images of a batch, those that one process takes at least, and the rest."""

    batch: int
    group: int
    rest: object


def memories(
    room: str, steps: Callable[[], dict[str, Step]], measure: Callable[..., estimate.Measured], option: str, remedy: str
) -> Iterator[Check]:
    """A check of the memory of each recipe or protocol whose step is none of those before.

    Args:
        room: `pretrain` or `transfer`, and `measure`, its room's.
        steps: gives them by id.
        option: sets the batch.
        remedy: for what is too large.
    """
    count = gpus()
    if not count:
        yield Check("memory", leave_out, ("without a GPU it takes minutes: `resim-bench plan ID`",))
        return
    first: dict[str, tuple[str, Step]] = {}
    for run_id, step in steps().items():
        first.setdefault(json.dumps(step), (run_id, step))
    for run_id, step in first.values():
        share = {option: step.batch // estimate.divisor(step.batch, step.group, count)}
        of = estimate.Run(room, run_id, 1), measure, share, count
        yield Check(f"memory of {run_id}", memory, of, remedy, 120)


ITERATIONS, CUT = 4, 2  # of a short training, and after which it is cut off


def continued(run: Callable[..., Path], processes: int, folder: Path) -> Finding:
    """Train in processes that are cut off, go on in others, and hold the weights against those of a run in one go.

    Args:
        run: a training of `ITERATIONS` iterations, called with `work_dir`, `resume` and `launcher`; it can be pickled.
        folder: where `cut` and `whole` are made, its work directories.
    """
    cut, whole = folder / "cut", folder / "whole"
    together(processes, _cut, run, cut)
    kept = [read_checkpoint(last)["meta"]["iter"] for last in cut.rglob(runs.LAST)]
    if kept != [CUT]:
        return Finding(NOT_READY, f"cut off after iteration {CUT}, it left checkpoints of {kept or 'none'}")
    together(processes, _go_on, run, cut, whole)
    weights = _weights(whole)
    error = apart(_weights(cut), weights)
    (run_dir,) = {file.parent for file in whole.rglob(runs.LAST)}
    step = statistics.median(line["time"] for line in trace.progress(run_dir)[1:])
    said = f"{ITERATIONS} iterations of {step:.2g} s; cut off and continued: "
    if error == 0:
        return Finding(READY, f"{said}the same bits")
    again = folder / "again"
    together(processes, _go_on, run, again)
    usual = apart(_weights(again), weights)
    said += f"{error:.0e} apart, two whole runs {usual:.0e}"
    return Finding(NOTED, said, ROUNDING) if error <= 10 * usual else Finding(NOT_READY, said)


def _launcher() -> str:
    return "pytorch" if int(os.environ["WORLD_SIZE"]) > 1 else "none"


def _cut(run, work_dir) -> None:
    with cut_off(CUT):
        run(work_dir=work_dir, launcher=_launcher())


def _go_on(run, *work_dirs) -> None:
    for work_dir in work_dirs:
        run(work_dir=work_dir, resume=True, launcher=_launcher())


def _weights(work_dir: Path) -> list[Tensor]:
    (last,) = work_dir.rglob(runs.LAST)
    return [value for _, value in sorted(read_checkpoint(last)["state_dict"].items())]
