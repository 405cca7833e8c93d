"""What both trainings set for their process, and what they say of options and launchers."""

import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from resim_bench.errors import UserError
from resim_bench.harness import draws, launch, options

FAULTS = """
import resource
import sys

import torch
from resim_bench.harness import runner

if sys.argv[1] == "kept":
    runner.keep_freed_memory()
for _ in range(10):  # the heap grows until an aligned block fits into a freed one
    torch.ones(20_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(20_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_kept_for_the_next_step():
    """Five tensors of 80 MB, one after another: new pages for each, where the system has to give them again."""

    def faults(memory):
        done = subprocess.run([sys.executable, "-c", FAULTS, memory], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("kept") < faults("returned") / 10


def test_what_building_raises_is_the_fault_of_the_options():
    with (
        pytest.raises(UserError, match=r"the option a.b=5 does not make .* \(TypeError: no\): change") as refusal,
        options.built_from({"a.b": 5}),
    ):
        raise TypeError("no\nmore of it")
    assert "\n" not in str(refusal.value) and isinstance(refusal.value.__cause__, TypeError)
    with (
        pytest.raises(UserError, match=r"the options a=1 and b='x' do not make .* \(KeyError: 'c'\)"),
        options.built_from({"a": 1, "b": "x"}),
    ):
        raise KeyError("c")


@pytest.mark.parametrize("error", [UserError("said"), OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_is_not_their_fault_passes(error):
    with pytest.raises(type(error)) as raised, options.built_from({"a": 1}):
        raise error
    assert raised.value is error


def test_without_options_it_is_ours():
    with pytest.raises(ZeroDivisionError), options.built_from({}):
        1 / 0  # noqa: B018


def test_a_name_is_followed_as_far_as_it_is_known():
    cfg = Config(dict(a=dict(b=[dict(c=1)], d=(1, 2), e=dict(), f=[1])))
    assert options.find(cfg, "a.b.0.c") == 1 and options.find(cfg, "a.d") == (1, 2)
    for name, sentence in {
        "x": "there is no setting x: the top level has a",
        "a.x": "there is no setting a.x: a has b, d, e, f",
        "a.b.1.c": "there is no setting a.b.1.c: a.b has the items 0 to 0",
        "a.b.-1": "there is no setting a.b.-1: a.b has the items 0 to 0",
        "a.b.0.c.d": "there is no setting a.b.0.c.d: a.b.0.c is 1 and has none of its own",
        "a.d.0": r"there is no setting a.d.0: a.d is \(1, 2\) and has none of its own",
        "a.f.0": r"there is no setting a.f.0: a.f is \[1\] and has none of its own",
        "a.e.f": "there is no setting a.e.f: a.e has none",
        "a..b": "there is no setting a..b: a has b, d, e",
        "": "there is no setting : the top level has a",
    }.items():
        with pytest.raises(UserError, match=sentence):
            options.find(cfg, name)


@pytest.mark.parametrize(
    ("launcher", "environment", "sentence"),
    [
        ("pytorch", {}, "finds no RANK in the environment: start by torchrun, or leave --launcher out"),
        ("pytorch", {"RANK": "0", "WORLD_SIZE": "x"}, "finds WORLD_SIZE='x', which is no number: start by torchrun"),
        ("slurm", {}, "finds no SLURM_PROCID in the environment: start by srun"),
        ("mpi", {"OMPI_COMM_WORLD_RANK": "0"}, "finds no OMPI_COMM_WORLD_SIZE in the environment: start by mpirun"),
    ],
)
@pytest.mark.parametrize("gpu", [False, True])
def test_a_launcher_that_did_not_start_this_process_is_said(monkeypatch, launcher, environment, sentence, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    for names in launch._LAUNCHED.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=sentence):
        launch.join_processes(launcher)


def test_processes_that_cannot_be_connected_are_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in launch._LAUNCHED["pytorch"]:
        monkeypatch.setenv(name, "7")

    def refused(backend):
        raise RuntimeError("no port\nat all")

    monkeypatch.setattr(torch.distributed, "init_process_group", refused)
    with pytest.raises(UserError, match=r"cannot connect the processes \(no port\): start all of them by torchrun"):
        launch.join_processes("pytorch")


class Shapes:
    """A data set of images of these (width, height), and which were `asked` for."""

    def __init__(self, *shapes):
        self.shapes, self.asked = shapes, []

    def __len__(self):
        return len(self.shapes)

    def get_data_info(self, index):
        self.asked.append(index)
        return dict(zip(("width", "height"), self.shapes[index], strict=True))


@pytest.mark.parametrize("square", ["wide", "tall"])
def test_a_square_image_is_grouped_with_those_that_are_said(square):
    shapes = Shapes((4, 3), (3, 4), (2, 2), (5, 3), (3, 5), (6, 6))
    stream = iter(draws.DrawSampler(shapes, seed=0, batch_size=2, group_by_aspect=True, square=square))
    for _ in range(30):
        pair = [shapes.shapes[index] for _, index in (next(stream), next(stream))]
        kinds = {"tall" if w < h else "wide" if w > h else square for w, h in pair}
        assert len(kinds) == 1
    assert sorted(shapes.asked) == list(range(6)), "each is asked for its shape once"
