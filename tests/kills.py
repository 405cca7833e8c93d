"""What SIGKILL leaves behind: every command is killed at each of its points, started again, and compared.

    python -m tests.kills                   all points of all commands (docs/runs.md)
    python -m tests.kills --few             one point of each kind
    python -m tests.kills pretrain import   of these commands

A point is a moment at which the files are as no finished program leaves them: a file was opened to be written, half of
a write is on the disk, or all of it is; before a file or folder is renamed, removed or made, before a file is put on
the disk (fsync), and after each. A fork of this process, whose imports are done, runs the command and kills itself at
the point; another runs the same command again, and what it leaves must be what an undisturbed run leaves: the same
weights, checkpoints and records, no file more. Clock times and logs are left out.
"""

import argparse
import builtins
import contextlib
import hashlib
import importlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork has no other threads

import torch
from tqdm import tqdm

import tables
from resim_bench import backbone, cli, evidence, record
from resim_bench.data import catalogue, fetch, scenes
from resim_bench.harness import checkpoint, parallel, runs
from tests.pretrain.helpers import noise_images
from tests.resim_bench.test_data import Server, part, zipped
from tests.transfer.conftest import TINY as TINY_TRANSFER
from tests.transfer.conftest import make_backbone, make_devkit

for _room in ("pretrain.train", "transfer.train", "resim_bench.checkpoints"):
    importlib.import_module(_room)  # once, for all forks

TINY_PRETRAIN = {
    "batch": 8,
    "max_iters": 3,
    "views.size": 32,
    "model.queue": 16,
    "model.bn_group": 4,
    "log_interval": 1,
    "monitor.every": 1,
    "monitor.images": 8,
    "monitor.size": 32,
    "workers": 0,
}


class Point(NamedTuple):
    """A moment: its kind, and the name of the file."""

    kind: str
    name: str


class Points:
    """Counts the points of this process below `root`, and kills it at the one of number `fatal`."""

    def __init__(self, root: Path, fatal: int | None = None):
        self.root, self.fatal, self.seen = os.path.abspath(root) + os.sep, fatal, []

    def here(self, kind: str, file) -> None:
        """One point."""
        if not isinstance(file, str | bytes | os.PathLike):
            return
        name = os.path.abspath(os.fsdecode(file))
        if not name.startswith(self.root):
            return
        if len(self.seen) == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen.append(Point(kind, name.removeprefix(self.root)))

    def install(self) -> None:
        """Stand in for what writes files, for the rest of this process's life."""
        for module, name, kind in (
            (os, "rename", "rename"),
            (os, "replace", "rename"),
            (os, "unlink", "unlink"),
            (os, "remove", "unlink"),
            (os, "mkdir", "mkdir"),
            (os, "rmdir", "rmdir"),
        ):
            setattr(module, name, self._around(getattr(module, name), kind))
        opened, fsync = io.open, os.fsync

        def open_seen(file, mode="r", *args, **kwargs):
            stream = opened(file, mode, *args, **kwargs)
            if set(mode) & set("wax+"):
                self.here("open", file)
                stream.write = partial(self._write, stream, type(stream).write, file)
            return stream

        def fsync_seen(handle):
            file = os.readlink(f"/proc/self/fd/{handle if isinstance(handle, int) else handle.fileno()}")
            self.here("before fsync", file)
            fsync(handle)
            self.here("fsync", file)

        builtins.open = io.open = open_seen
        os.fsync = fsync_seen

    def _around(self, function, kind: str):
        def seen(path, *args, dir_fd=None, **kwargs):
            folder = "" if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
            place = os.path.join(folder, os.fsdecode(path))
            self.here(f"before {kind}", place)
            result = function(path, *args, **kwargs | ({} if dir_fd is None else {"dir_fd": dir_fd}))
            self.here(kind, place)
            return result

        return seen

    def _write(self, stream, write, file, content):
        half = len(content) // 2
        done = write(stream, content[:half])
        stream.flush()
        self.here("half a write", file)
        done += write(stream, content[half:])
        stream.flush()
        self.here("write", file)
        return done


class Command(NamedTuple):
    """What is killed: `prepare` makes what it needs in a folder, `run` runs it there, `result` says what it left."""

    prepare: Callable[[Path], None]
    run: Callable[[Path], int | None]
    result: Callable[[Path], dict]


def options(values: dict) -> list[str]:
    """As the command line has them."""
    return ["--cfg-options", *(f"{key}={value}".replace(" ", "") for key, value in values.items())]


def _noise(folder: Path) -> None:
    noise_images(folder / "images")
    make_devkit(folder / "VOCdevkit")


def _often() -> None:
    """A checkpoint after every step."""
    checkpoint.SafeCheckpointHook.__init__.__defaults__ = (0.0, 50)


def _run_pretrain(folder: Path) -> int | None:
    _often()
    where = ["--data", str(folder / "images"), "--work-dir", str(folder / "out"), "--resume"]
    monitored = {"monitor.data": folder / "VOCdevkit"}
    return cli.main(["pretrain", "mini-moco-v2", *where, *options(TINY_PRETRAIN | monitored)])


def _run_transfer(folder: Path) -> int | None:
    _often()
    where = ["--data", str(folder / "VOCdevkit"), "--work-dir", str(folder / "out"), "--resume"]
    where += ["--backbone", str(folder / "b.safetensors")]
    return cli.main(["transfer", "mini-voc-frozen", *where, *options(TINY_TRANSFER | {"max_iters": 3})])


def _devkit(folder: Path) -> None:
    make_devkit(folder / "VOCdevkit")
    make_backbone(folder / "b.safetensors")


def _checkpoint(folder: Path) -> None:
    import torchvision

    torch.manual_seed(0)
    torch.save(torchvision.models.resnet50().state_dict(), folder / "c.pth")


def _run_import(folder: Path) -> int | None:
    return cli.main(["import", str(folder / "c.pth"), "--as", "given-x", "--work-dir", str(folder / "out")])


def _run_export(folder: Path) -> int | None:
    return cli.main(["export", str(folder / "b.safetensors"), str(folder / "out" / "b.pkl")])


def _named(folder: Path) -> None:
    make_backbone(folder / "b.safetensors", strides=(1, 2, 2, 2), width=64)


def _run_hub(folder: Path) -> int | None:
    return cli.main(["export", str(folder / "b.safetensors"), str(folder / "out" / "hub")])


_KEPT = evidence.read_all(tables.RECORDS)


def _records(folder: Path) -> None:
    for number, entry in enumerate(_KEPT[:3]):
        entry = json.loads(json.dumps(entry))
        entry["transfer"]["seed"] = 1000 + number
        record.write(folder / "work/records", entry)


def _run_keep(folder: Path) -> int | None:
    tables.RECORDS = folder / "out"
    return cli.main(["records", "keep", "--work-dir", str(folder / "work")])


def _run_study(folder: Path) -> int | None:
    """One unit: its scenes, and its records into the evidence; its trainings are the commands above."""
    tables.RECORDS = folder / "out/records"
    os.chdir(folder / "out")
    write = scenes.write
    scenes.write = lambda root: write(root, pretrain_images=4, train_images=3, test_images=2)
    parallel.run = lambda trials, work_dir: _pretend(trials, folder / "work")
    first = tables.units(tables.load_studies()["mini"])[:1]
    tables.units = lambda study: first
    return cli.main(["study", "mini", "--work-dir", str(folder / "work")])


def _pretend(trials, work_dir: Path) -> None:
    """Records as trainings would leave them."""
    for trial in trials:
        pair = trial.experiment
        if not record.path(work_dir / "records", *pair, trial.seed, trial.seed).exists():
            entry = json.loads(json.dumps(_KEPT[0]))
            entry["pretrain"] |= {"id": pair.pretrain_id, "seed": trial.seed}
            entry["transfer"] |= {"id": pair.transfer_id, "seed": trial.seed}
            record.write(work_dir / "records", entry)


def _run_scenes(folder: Path) -> None:
    scenes.write(folder / "out/mini", pretrain_images=4, train_images=3, test_images=2)


def _run_download(folder: Path) -> None:
    fetch.get("coco", folder / "out")


def _files(folder: Path) -> dict:
    """Every file below, by its content."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted((folder / "out").rglob("*"))
        if file.is_file()
    }


def _without_logs(folder: Path) -> dict:
    """What backbones, records and detections say, checkpoints and monitors by their names, without logs and clocks."""
    found = {}
    for file in sorted((folder / "out").rglob("*")):
        name = str(file.relative_to(folder))
        if file.suffix == ".safetensors":
            state, provenance = backbone.load(file)
            dropped = (backbone.CHECKSUM, "changes")
            said = {key: value for key, value in provenance.items() if key not in dropped}
            found[name] = {key: hashlib.sha256(value.numpy().tobytes()).hexdigest() for key, value in state.items()}
            found[name] |= {"said": said}
        elif "records" in file.parts and file.suffix == ".json":
            dropped = ("seconds", "finished", "changes", record.CHECKSUM)
            found[name] = {key: value for key, value in record.read(file).items() if key not in dropped}
            found[name]["transfer"].pop("changes")
        elif file.suffix == ".npz":
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        elif file.name == runs.LAST:
            state = torch.load(file, weights_only=True)["state_dict"]
            found[name] = {key: hashlib.sha256(value.numpy().tobytes()).hexdigest() for key, value in state.items()}
        elif file.name == "monitor.jsonl":
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            found[name] = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
        elif file.is_file() and not any(part[:8].isdigit() for part in file.parts):
            found[name] = "there"
    return found


COMMANDS = {
    "pretrain": Command(_noise, _run_pretrain, _without_logs),
    "transfer": Command(_devkit, _run_transfer, _without_logs),
    "import": Command(_checkpoint, _run_import, _without_logs),
    "export": Command(_devkit, _run_export, _files),
    "hub": Command(_named, _run_hub, _files),
    "keep": Command(_records, _run_keep, _files),
    "study": Command(lambda folder: None, _run_study, _files),
    "scenes": Command(lambda folder: None, _run_scenes, _files),
    "download": Command(lambda folder: None, _run_download, _files),
}


def in_fork(command: Command, folder: Path, fatal: int | None) -> tuple[int, list[Point], str]:
    """Run it in a fork; its exit code (-9 when it was killed), the points it came to, and what it said."""
    said, seen = folder / "said", folder / "seen"
    child = os.fork()
    if not child:
        code = 99
        try:
            with open(said, "w") as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
                points = Points(folder / "out", fatal)
                points.install()
                code = command.run(folder) or 0
            seen.write_text(json.dumps(points.seen))
        except BaseException as error:  # noqa: BLE001 (a fork must not go on as its parent)
            print(repr(error), file=sys.__stderr__)
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    points = [Point(*point) for point in json.loads(seen.read_text())] if seen.exists() else []
    return status, points, said.read_text()


def few(points: list[Point]) -> list[int]:
    """The number of one point of each kind: the middle one."""
    of_kind: dict[str, list[int]] = {}
    for number, point in enumerate(points):
        of_kind.setdefault(point.kind, []).append(number)
    return sorted(numbers[len(numbers) // 2] for numbers in of_kind.values())


def sweep(name: str, only_few: bool) -> tuple[int, list[str]]:
    """Kill a command at its points; how many there were, and a line for each after which something was lost."""
    command, failures = COMMANDS[name], []
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        template = Path(scratch, "template")
        template.mkdir()
        command.prepare(template)

        def fresh() -> Path:
            folder = Path(scratch, "run")
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(template, folder)
            (folder / "out").mkdir()
            return folder

        code, points, said = in_fork(command, folder := fresh(), None)
        assert code == 0, said
        expected = command.result(folder)
        chosen = few(points) if only_few else range(len(points))
        for number in tqdm(chosen, desc=name, unit=" kills", disable=None):  # silent outside of a terminal
            folder = fresh()
            killed, *_ = in_fork(command, folder, number)
            code, _, said = in_fork(command, folder, None)
            problem = "" if code == 0 else f"exit code {code}: {said.strip().splitlines()[-1:]}"
            found = command.result(folder) if not problem else None
            if found is not None and found != expected:
                differing = [key for key in expected | found if expected.get(key) != found.get(key)]
                problem = f"another result: {', '.join(differing[:3])}"
            if killed != -signal.SIGKILL:
                problem = f"was not killed but ended with {killed}"
            if problem:
                failures.append(f"{name}, point {number}, {' '.join(points[number])}: {problem}")
                print(failures[-1], flush=True)
        kinds = Counter(points[number].kind for number in chosen)
    print(f"{name}: {len(points)} points; killed at {len(chosen)}", dict(kinds), flush=True)
    return len(chosen), failures


@contextlib.contextmanager
def local_server():
    """Serves a small archive as COCO's only part."""
    os.environ["NO_PROXY"] = "127.0.0.1"
    server = Server()
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    server.files = {"val.zip": zipped({f"val2017/{index}.jpg": b"image" * 99 for index in range(3)})}
    images = partial(catalogue.problem_of_images, expected=3)
    catalogue.DATA_SETS["coco"] = [part(server, "val.zip", "coco-*", "coco/val2017", images, "val2017")]
    fetch.PIECE = 512
    yield
    server.shutdown()


def main(arguments: list[str] | None = None) -> int:
    """Sweep, and say what was lost; exit code 1 if anything was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--few", action="store_true")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    started, total, failures = time.monotonic(), 0, []
    with local_server():
        for name in args.commands or COMMANDS:
            kills, lost = sweep(name, args.few)
            total, failures = total + kills, failures + lost
    minutes = (time.monotonic() - started) / 60
    print(f"{total} kills, {total - len(failures)} end as if there had been none, in {minutes:.0f} min")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
