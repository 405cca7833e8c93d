"""Recipes as they train: schedule, resume, workers, refusals."""

import math
import multiprocessing
import os
import socket
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
import torch.multiprocessing as mp

from pretrain import train
from pretrain.data import LabelledView
from pretrain.encoders import resnet, trunk_maps
from pretrain.methods.moco import MoCo
from pretrain.views import normalise
from resim_bench import backbone
from resim_bench.errors import UserError
from resim_bench.harness import checkpoint, draws, runner, trace
from resim_bench.harness.runner import build_runner
from tests.pretrain.helpers import LEVEL, TINY_RUN, interrupt_at, noise_images, same_weights

LEVEL_OPTIONS = {"model.levels.c4.window": 16, "model.levels.c4.stride": 8}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return noise_images(tmp_path_factory.mktemp("images"), classes=2)


def pretrain(images, work_dir, pretrain_id="mini-resim-c4", options=None, **arguments):
    settings = TINY_RUN | (LEVEL_OPTIONS if pretrain_id == "mini-resim-c4" else {}) | (options or {})
    return train.run(pretrain_id, data=images, work_dir=work_dir, cfg_options=settings, **arguments)


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """A backbone trained without interruption."""
    return pretrain(images, tmp_path_factory.mktemp("finished"))


def test_interrupted_and_resumed_equals_uninterrupted(images, finished, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupt_at(patch, step=4)
        with pytest.raises(KeyboardInterrupt):
            pretrain(images, tmp_path)
    with pytest.raises(UserError, match="unfinished run: add --resume"):
        pretrain(images, tmp_path)
    capsys.readouterr()
    file = pretrain(images, tmp_path, resume=True)
    survey, _, second, *progress, last = capsys.readouterr().out.splitlines()
    assert survey == f"{images}/train: 20 images of 2 classes"
    assert second == "  continues after iteration 3" and "wrote" in last
    assert all(line.startswith("  Iter(train)") for line in progress), "nothing else is said"
    assert "resumed epoch: 0, iter: 3" in "".join(log.read_text() for log in tmp_path.rglob("*.log"))
    assert same_weights(file, finished)


def test_workers_do_not_change_the_numbers(images, finished, tmp_path, capsys):
    before = multiprocessing.active_children()
    assert same_weights(pretrain(images, tmp_path, options={"workers": 2}), finished)
    assert set(multiprocessing.active_children()) <= set(before), "workers end with their training"
    _, first, *progress, last = capsys.readouterr().out.splitlines()
    assert first.startswith("mini-resim-c4, seed 0: 2 epochs") and "wrote" in last
    assert all(line.startswith("  Iter(train)") for line in progress), "progress and nothing else"
    assert all(part in progress[0] for part in ("eta: ", "data_time: ", "time: ", "top1_c4: ", "loss_instance: "))


def test_freed_memory_is_kept_where_there_is_no_gpu(images, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(runner, "keep_freed_memory", lambda: asked.append(True))
    pretrain(images, tmp_path, options={"max_iters": 1})
    assert bool(asked) is not torch.cuda.is_available()


def test_the_seed_does(images, finished, tmp_path):
    assert not same_weights(pretrain(images, tmp_path, seed=1), finished)


def test_a_finished_run_is_left_alone(images, finished, capsys):
    before = finished.stat().st_mtime_ns
    assert pretrain(images, finished.parents[3]) == finished
    assert finished.stat().st_mtime_ns == before
    assert "done before" in capsys.readouterr().out


def test_another_configuration_does_not_overwrite(images, finished):
    with pytest.raises(UserError, match="another configuration .protocol.optimizer.lr was 0.06, is now 0.01"):
        pretrain(images, finished.parents[3], options={"optimizer.lr": 0.01})


IN_FLOAT64 = """
import runpy, torch
torch.set_default_dtype(torch.float64)
runpy.run_module("resim_bench.program", run_name="__main__")
"""


@pytest.mark.slow
def test_torchrun_with_two_processes_equals_one(images, tmp_path):
    """In float64: in float32 batch norm over a few pixels blows rounding up, on some processors within two steps."""
    settings = TINY_RUN | LEVEL_OPTIONS | {"max_iters": 2}
    options = [f"{key}={value}" for key, value in settings.items()]
    program = tmp_path / "in_float64.py"
    program.write_text(IN_FLOAT64)
    torchrun = ["-m", "resim_bench.torchrun", "--standalone", "--nproc-per-node=2"]
    starts = {"one": ([], []), "two": (torchrun, ["--launcher", "pytorch"])}
    for name, (start, launcher) in starts.items():
        command = [program, "pretrain", "mini-resim-c4", *launcher, "--data", images, "--work-dir", tmp_path / name]
        done = subprocess.run(
            [sys.executable, *start, *command, "--cfg-options", *options],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
    files = {name: next((tmp_path / name).rglob("*.safetensors")) for name in starts}
    one, two = (backbone.load(file)[0] for file in files.values())
    assert {value.dtype for value in one.values()} >= {torch.float64}
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-9, atol=1e-12, msg=lambda m, key=key: f"{key}: {m}")
    one, two = (trace.progress(file.parent) for file in files.values())
    for name in ("loss", "loss_instance", "loss_c4", "top1_instance", "top1_c4", "windows_c4"):
        assert [line[name] for line in two] == pytest.approx([line[name] for line in one], rel=1e-4), name


def one_of_two(rank, port, images, work_dir, interrupted):
    """A process of a torchrun of two, in which Ctrl-C comes in the forward pass of step 4."""
    torch.set_num_threads(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank}
    os.environ.update({name: str(value) for name, value in place.items()})
    with pytest.MonkeyPatch.context() as patch:
        if interrupted:
            interrupt_at(patch, step=4)
        with pytest.raises(KeyboardInterrupt) if interrupted else nullcontext():
            pretrain(images, work_dir, launcher="pytorch", resume=True)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_continue_where_they_were_cut_off(images, tmp_path):
    for folder, interrupted in (("whole", False), ("parts", True), ("parts", False)):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        mp.spawn(one_of_two, args=(port, images, tmp_path / folder, interrupted), nprocs=2)
        kept = torch.load(next((tmp_path / folder).rglob("last.pth")), weights_only=True)
        assert kept["meta"]["iter"] == (3 if interrupted else 4)
    whole, parts = (next((tmp_path / folder).rglob("*.safetensors")) for folder in ("whole", "parts"))
    assert same_weights(parts, whole)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(images, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.SafeCheckpointHook.__init__, "__defaults__", (0.0, 50))
    forward, calls = MoCo.forward, []

    def diverging(self, *args, **kwargs):
        calls.append(1)
        results = forward(self, *args, **kwargs)
        return {k: v * (float("nan") if len(calls) == 3 else 1) for k, v in results.items()}

    monkeypatch.setattr(MoCo, "forward", diverging)
    with pytest.raises(UserError, match="not finite at iteration 3: lower the learning rate"):
        pretrain(images, tmp_path, "mini-moco-v2")
    kept = torch.load(next(tmp_path.rglob("last.pth")), weights_only=True)
    assert kept["meta"]["iter"] == 2
    assert all(v.isfinite().all() for v in kept["state_dict"].values())


def test_provenance_says_what_was_run(images, finished):
    _, provenance = backbone.load(finished)
    assert provenance["id"] == "mini-resim-c4" and provenance["seed"] == 0 and provenance["epochs"] == 2
    assert provenance["arch"] == {"depth": 18, "strides": [1, 1, 1, 2], "width": 16}
    assert provenance["overrides"] == TINY_RUN | LEVEL_OPTIONS
    assert provenance["deviations"]["batch"] == [64, 8]
    assert provenance["deviations"]["dataset.images"] == [4000, 20]
    assert "workers" not in provenance["protocol"] and "log_interval" not in provenance["protocol"]


@pytest.mark.parametrize("pretrain_id", ["in100-supervised", "mini-random"])
def test_the_baselines_run(images, tmp_path, pretrain_id):
    options = {"batch": 8, "views.size": 32} | (
        {"epochs": 1, "model.bn_group": 4, "model.backbone.depth": 18}
        if "supervised" in pretrain_id
        else {"calibration_batches": 2}
    )
    file = train.run(pretrain_id, data=images, work_dir=tmp_path, cfg_options=options)
    state, _ = backbone.load(file)
    assert len(state) == 120, "the trunk of a ResNet-18 and nothing else"
    assert state["bn1.running_var"].isfinite().all() and not torch.equal(state["bn1.running_mean"], torch.zeros(64))


def test_resim_fpn_leaves_its_pyramid(images, tmp_path):
    options = {"model.backbone.depth": 18, "max_iters": 1, "workers": 0}
    options |= {f"model.levels.{source}.{key}": 8 for source in ("p4", "p3") for key in ("window", "stride")}
    file = pretrain(images, tmp_path, "in1k-resim-fpn-200ep", options)
    state, provenance = backbone.load(file)
    assert len(backbone.trunk_state(state)) == 120 and len(backbone.pyramid_state(state)) == 10
    trained = torch.load(next(tmp_path.rglob("last.pth")), weights_only=True)["state_dict"]
    for key, value in backbone.pyramid_state(state).items():
        assert torch.equal(value, trained[key.replace("fpn_", "encoder_q.fpn.")]), key
    assert provenance["deviations"]["model.levels.p3.window"] == [32, 8]


def test_an_untrained_network_needs_no_images(tmp_path, capsys):
    options = {"model.backbone.depth": 18}
    file = train.run("random", data=tmp_path / "none", work_dir=tmp_path, cfg_options=options)
    assert "no training, 1 process" in capsys.readouterr().out
    state, provenance = backbone.load(file)
    torch.manual_seed(0)
    fresh = resnet(**train.load_recipe("random", options).model.backbone).state_dict()
    assert all(torch.equal(state[key], fresh[key]) for key in state)
    assert provenance["epochs"] == 0 and provenance["data"] == train.NO_IMAGES
    assert list(provenance["deviations"]) == ["model.backbone.depth"]
    assert train.run("random", data=tmp_path / "none", work_dir=tmp_path, cfg_options=options) == file
    with pytest.raises(UserError, match="there is no image folder"):
        train.run("random-calibrated", data=tmp_path / "none", work_dir=tmp_path)


def test_statistics_of_several_processes_are_those_of_one(images, tmp_path, monkeypatch):
    """The first process' model is kept, which sees the images that one alone would."""
    options = {"batch": 4, "calibration_batches": 3, "views.size": 32}
    found = []
    for world in (1, 2):
        monkeypatch.setattr(train.draws, "get_dist_info", lambda world=world: (0, world))
        file = train.run("mini-random", data=images, work_dir=tmp_path / str(world), cfg_options=options)
        found.append(backbone.load(file)[0]["bn1.running_mean"])
    assert torch.equal(*found) and found[0].any()


def test_random_statistics_are_those_of_the_images(images, tmp_path):
    """Calibrated, the network in eval mode has activations as in training mode: C4 near unit scale, not 15."""
    file = train.run(
        "mini-random",
        data=images,
        work_dir=tmp_path,
        cfg_options={"batch": 8, "calibration_batches": 4, "views.size": 32},
    )
    trunk = resnet(**train.load_recipe("mini-random").model.backbone)
    trunk.load_state_dict(backbone.load(file)[0])
    views = train.load_recipe("mini-random").views.to_dict() | {"size": 32}
    dataset = LabelledView(str(images), "", views, seed=1)
    batch = torch.stack([dataset[draw, draw % 20]["image"] for draw in range(64)])
    with torch.no_grad():
        trained, frozen = (trunk_maps(trunk.train(mode), normalise(batch))["c4"] for mode in (True, False))
    assert frozen.std() / trained.std() == pytest.approx(1, abs=0.3)


def test_learning_rate_by_epoch():
    """MoCo: lr / 2 (1 + cos(pi epoch / epochs)), constant within an epoch; the supervised recipe in steps."""
    for milestones, factor in (
        ((), lambda e: 0.5 * (1 + math.cos(math.pi * e / 10))),
        ((3, 6), lambda e: 0.1 ** ((e >= 3) + (e >= 6))),
    ):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.03)
        schedule = train.EpochLR(optimizer, epoch_iters=4, epochs=10, milestones=milestones, by_epoch=False)
        for iteration in range(60):  # behind its end the cosine does not rise again
            assert optimizer.param_groups[0]["lr"] == pytest.approx(0.03 * factor(min(iteration // 4, 10)))
            optimizer.step()
            schedule.step()


def test_draws_of_two_processes_are_those_of_one(monkeypatch):
    def drawn(rank, world, batch):
        monkeypatch.setattr(draws, "get_dist_info", lambda: (rank, world))
        stream = iter(draws.DrawSampler(range(37), seed=3, batch_size=batch, drop_last=True))
        return [next(stream) for _ in range(60 // world)]

    one, two = drawn(0, 1, 10), [drawn(r, 2, 5) for r in (0, 1)]
    assert [d for d, _ in one] == list(range(60))
    assert sorted(i for _, i in one[:30]) == sorted({i for _, i in one[:30]}), "no image twice in an epoch"
    for batch in range(6):
        halves = two[0][5 * batch : 5 * batch + 5] + two[1][5 * batch : 5 * batch + 5]
        assert halves == one[10 * batch : 10 * batch + 10]
    alone = iter(draws.DrawSampler(range(37), seed=3, batch_size=10, drop_last=True, alone=True))
    assert [next(alone) for _ in range(60)] == one, "what one of two processes draws for all"


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("rank", "world"), [(0, 1), (0, 3), (2, 3)])
def test_skipped_draws_are_the_ones_that_follow(monkeypatch, rank, world, drop_last):
    monkeypatch.setattr(draws, "get_dist_info", lambda: (rank, world))
    sampler = draws.DrawSampler(range(11), seed=0, batch_size=2, drop_last=drop_last)
    whole = [item for item, _ in zip(sampler, range(40), strict=False)]
    for start in (0, 1, 2, 11, 13, 22, 30):
        sampler.skip(start)
        assert [item for item, _ in zip(sampler, range(40 - start), strict=False)] == whole[start:]


def test_no_epoch_before_is_drawn_again(monkeypatch):
    """The last of 200 epochs of ImageNet begins as soon as the first."""
    drawn, generator = [], draws.np.random.default_rng
    monkeypatch.setattr(draws.np.random, "default_rng", lambda seed: drawn.append(seed) or generator(seed))
    sampler = draws.DrawSampler(range(10), seed=5, batch_size=2)
    sampler.skip(1234)
    next(iter(sampler))
    assert drawn == [(5, 123)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch": 24, "model.queue": 48}, "larger than the data set of 20 images"),
        ({"model.queue": 20}, "queue of 20 is not a multiple of the batch of 8"),
        ({"model.bn_group": 3}, "batch of 8 is not a multiple of the batch-norm group of 3"),
        ({"views.flip": "independent"}, 'a recipe with levels needs views.flip="shared"'),
        ({"micro_batch": 6}, "micro_batch of 6 is not a multiple of the batch-norm group"),
        ({"precision": "int8"}, "precision is 'int8': give float32, tf32 or bfloat16"),
        ({"model.levels.c4.anchor": "centre"}, "anchor is 'centre': give query, overlap or view"),
        ({"optimizer.lrr": 1}, "no setting optimizer.lrr: optimizer has type, lr, momentum, weight_decay"),
        ({"optimiser.lr": 1}, "no setting optimiser.lr: the top level has model, .*optimizer"),
        ({"batch": "many"}, "batch is 'many': give a whole number of at least 1"),
        ({"batch": 0}, "batch is 0: give a whole number of at least 1"),
        ({"model.levels.c4.window": 32}, "window of 32 px does not fit a view of 32 px"),
        ({"model.levels": {"c5": {}}}, "no setting model.levels.c5: model.levels has c4, p4, p3"),
        ({"model.levels": {"p4": LEVEL}}, "both p4 and p3, of the same dim"),
        ({"model.levels": {"p4": LEVEL, "p3": LEVEL | {"dim": 4}}}, "both p4 and p3, of the same dim"),
    ],
)
def test_settings_that_do_not_fit_are_refused(images, tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        pretrain(images, tmp_path, options=options)
    assert not list(tmp_path.iterdir()), "nothing half-written"


def test_several_recipes_take_the_options_that_they_have():
    chosen = train.options_of_each(["in100-moco-v2", "in100-supervised"], {"batch": 16, "model.queue": 1024})
    assert chosen == {"in100-moco-v2": {"batch": 16, "model.queue": 1024}, "in100-supervised": {"batch": 16}}
    with pytest.raises(UserError, match="no setting model.que: model has type, backbone, .*queue"):
        train.options_of_each(["in100-moco-v2", "in100-supervised"], {"model.que": 1024})


def test_unknown_ids_and_folders_are_refused(images, tmp_path):
    with pytest.raises(UserError, match="no id matches 'in100-moco'.*did you mean in100-moco-v2"):
        train.run("in100-moco", work_dir=tmp_path)
    with pytest.raises(UserError, match="there is no image folder"):
        pretrain(tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images: expected"):
        pretrain(tmp_path / "empty", tmp_path)


def test_an_unreadable_image_is_named(images, tmp_path):
    folder = tmp_path / "images" / "class"
    folder.mkdir(parents=True)
    for i in range(8):
        (folder / f"{i}.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"class/\d.jpg is no readable image"):
        pretrain(tmp_path / "images", tmp_path)


def test_methods_share_what_a_seed_can_share(images, tmp_path):
    """So that a seed's runs are a pair: trunk, head and queue as they start, the order of images, every draw."""

    def started(pretrain_id):
        options = TINY_RUN | (LEVEL_OPTIONS if pretrain_id == "mini-resim-c4" else {})
        recipe = train.load_recipe(pretrain_id, options)
        dataset = dict(type="TwoViews", root=str(images), name="scenes", views=recipe.views.to_dict(), seed=3)
        runner = build_runner(train.runner_config(recipe, dataset, 20, 1), seed=3)
        return runner.model.state_dict(), [next(iter(runner.train_dataloader)) for _ in range(2)]

    plain, plain_batches = started("mini-moco-v2")
    regions, region_batches = started("mini-resim-c4")
    assert all(torch.equal(plain[name], regions[name]) for name in plain)
    for batch, other in zip(plain_batches, region_batches, strict=True):
        assert torch.equal(batch["query"], other["query"])
        alike = (batch["key"] == other["key"]).flatten(1).all(1)
        assert 0 < alike.sum() < len(alike), "where the flips agree by chance; ReSim's key has the query's"

    options = {"batch": 8, "views.size": 32, "calibration_batches": 1}
    file = train.run("mini-random", data=images, work_dir=tmp_path / "random", seed=3, cfg_options=options)
    untrained = backbone.load(file)[0]
    trunk = {name.removeprefix("encoder_q.trunk."): value for name, value in plain.items() if "q.trunk" in name}
    assert all(torch.equal(untrained[name], trunk[name]) for name in trunk if name.endswith("weight"))
