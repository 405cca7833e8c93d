"""Progress in other tools: files below the run, from its first line on, and not a number changed."""

import sys

import pytest
from mmengine.registry import VISBACKENDS
from mmengine.visualization.vis_backend import BaseVisBackend

from pretrain import train
from resim_bench import backbone, cli
from resim_bench.errors import UserError
from resim_bench.harness import logs, runs
from tests.pretrain.helpers import TINY_RUN, interrupt_at, noise_images, same_weights
from tests.transfer.conftest import TINY as TINY_TRANSFER
from tests.transfer.conftest import make_backbone, make_devkit
from transfer import train as transfer

GIVEN = []  # what the backend got, in order


@VISBACKENDS.register_module()
class MemoryLog(BaseVisBackend):
    """Keeps what it is given; like the others it writes once it is."""

    experiment = None

    def _init_env(self):
        pass

    def add_image(self, *_, **__):
        raise AssertionError

    def add_scalar(self, *_, **__):
        raise AssertionError

    def add_scalars(self, scalar_dict, step=0, file_path=None, **_):
        GIVEN.append((self._save_dir, step, scalar_dict))

    def close(self):
        GIVEN.append((self._save_dir, "closed", {}))


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.setitem(logs.LOGS, "memory", logs.Log("MemoryLog", "json"))
    GIVEN.clear()
    return GIVEN


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return noise_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def start(images, tmp_path):
    def run(work="work", **keywords):
        arguments = {"data": images, "work_dir": tmp_path / work, "cfg_options": TINY_RUN} | keywords
        return train.run("mini-moco-v2", **arguments)

    return run


def test_each_line_goes_below_the_run_and_changes_nothing(start, memory):
    without = start("without")
    assert not memory
    file = start(log=("memory",))
    assert {place for place, _, _ in memory} == {str(file.parent / "logs" / "memory")}
    assert [step for _, step, _ in memory] == [1, 2, 3, 4, "closed"]
    assert memory[0][2].keys() >= {"iter", "lr", "loss", "images/s"}
    assert same_weights(file, without)
    assert runs.read_claim(file.parent) == runs.read_claim(without.parent)
    assert "memory" not in (file.parent / runs.CLAIM).read_text()
    provenance, other = backbone.load(file)[1], backbone.load(without)[1]
    assert {key for key in provenance if provenance[key] != other[key]} <= {"commit"}


def test_a_run_that_goes_on_logs_on(start, memory, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, step=4)
        with pytest.raises(KeyboardInterrupt):
            start(log=("memory",))
    file = start(log=("memory",), resume=True)
    assert [step for _, step, _ in memory] == [1, 2, 3, 4, "closed"]
    assert same_weights(file, start("whole"))


def test_a_transfer_logs_its_metrics_too(memory, tmp_path):
    data, file = make_devkit(tmp_path / "VOCdevkit"), make_backbone(tmp_path / "backbone.safetensors")
    options = TINY_TRANSFER | {"max_iters": 2, "default_hooks.logger.interval": 1}
    for seed in (0, 1):
        transfer.run(
            "mini-voc-frozen",
            file,
            data=data,
            seed=seed,
            work_dir=tmp_path / "work",
            cfg_options=options,
            log=("memory",),
        )
        assert [step for _, step, _ in memory] == [1, 2, 2, "closed"], "open until the test is over"
        assert "voc/AP" in memory[2][2]
        assert memory[0][0].endswith(f"mini-voc-frozen/pretrain-3_transfer-{seed}/logs/memory")
        memory.clear()


def test_a_start_that_fails_leaves_no_log(start, memory, tmp_path):
    options = TINY_RUN | {"max_iters": 1, "optimizer.lr": 1e38, "optimizer.weight_decay": 1e3}
    with pytest.raises(UserError, match="not finite"):
        start(log=("memory",), cfg_options=options)
    assert not (tmp_path / "work").exists() or not list((tmp_path / "work").rglob("*"))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("nope", "there is no log 'nope': give tensorboard, wandb or mlflow, or several with commas"),
        ("wandb", "--log wandb cannot import wandb (import of wandb halted; None in sys.modules): pip install wandb"),
        ("", "there is no log ''"),
    ],
)
def test_what_there_is_not_is_one_sentence_before_anything(given, sentence, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    command = ["pretrain", "mini-moco-v2", "--data", images, "--work-dir", tmp_path / "work", "--log", given]
    assert cli.main([str(word) for word in command]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not (tmp_path / "work").exists()
    with pytest.raises(UserError):
        train.run("mini-moco-v2", data=images, work_dir=tmp_path / "work", cfg_options=TINY_RUN, log=(given,))
    assert not (tmp_path / "work").exists()


def test_a_folder_that_wandb_left_is_not_wandb(tmp_path, monkeypatch):
    (tmp_path / "wandb_left").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(logs.LOGS, "left", logs.Log("MemoryLog", "wandb_left"))
    with pytest.raises(UserError, match="cannot import wandb_left .it is not installed.: pip install left"):
        logs.check(["left"])


def test_where_wandb_and_mlflow_write(tmp_path, monkeypatch):
    """They are not asked to: neither is installed here."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(logs, "MLFLOW_SERVER", None)
    run_dir = tmp_path / "work" / "pretrain" / "mini-moco-v2" / "seed-0"
    made = logs.backends(["wandb", "mlflow"], run_dir)
    assert made["wandb"]._init_kwargs["mode"] == "offline"
    assert made["wandb"]._init_kwargs["name"] == made["mlflow"]._run_name == "pretrain/mini-moco-v2/seed-0"
    assert made["mlflow"]._tracking_uri == f"sqlite:///{run_dir}/logs/mlflow/mlflow.db"
    for backend in made.values():
        backend.close()  # nothing was begun
    assert not run_dir.exists()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(logs, "MLFLOW_SERVER", "http://localhost:5000")
    made = logs.backends(["wandb", "mlflow"], run_dir)
    assert made["wandb"]._init_kwargs["mode"] == "online"
    assert made["mlflow"]._tracking_uri == "http://localhost:5000"


def test_tensorboard_reads_what_was_logged(start, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with monkeypatch.context() as patch:
        interrupt_at(patch, step=3)
        with pytest.raises(KeyboardInterrupt):
            start(log=("tensorboard",))
    file = start(log=("tensorboard",), resume=True)
    assert same_weights(file, start("whole"))
    events = EventAccumulator(str(file.parent / "logs" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
    assert {"lr", "images/s", "top1_instance"} <= set(events.Tags()["scalars"])
