"""Every recipe as it resolves, against the reference; the paper's thesis as a difference of two recipes."""

import pytest

from pretrain import train
from resim_bench import experiments
from resim_bench.harness import draws, runs

# facebookresearch/moco: README and code; the length on IN-100 is ours.
IN1K = {"epochs": 200, "dataset.name": "imagenet1k", "dataset.images": 1281167, "dataset.classes": 1000}
MOCO = {
    "batch": 256,
    "epochs": 500,
    "max_iters": None,
    "milestones": [],
    "precision": "float32",
    "dataset.name": "imagenet100",
    "dataset.images": 126689,
    "dataset.classes": 100,
    "optimizer.type": "SGD",
    "optimizer.lr": 0.03,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 1e-4,
    "model.type": "MoCo",
    "model.backbone.depth": 50,
    "model.backbone.strides": [1, 2, 2, 2],
    "model.queue": 65536,
    "model.momentum": 0.999,
    "model.temperature": 0.2,
    "model.dim": 128,
    "model.bn_group": 32,
    "model.instance_weight": 1.0,
    "model.levels": {},
    "views.size": 224,
    "views.scale": [0.2, 1.0],
    "views.flip": "independent",
    "views.jitter": [0.4, 0.4, 0.4, 0.1],
    "views.jitter_p": 0.8,
    "views.grayscale_p": 0.2,
    "views.blur_sigma": [0.1, 2.0],
    "views.blur_p": 0.5,
    "views.blur": "boxes",
    "views.photometric": ["jitter", "grayscale", "blur"],
}
C4 = {  # the paper's window; the embedding's 128 is ours
    "map_stride": 16,
    "window": 48,
    "stride": 32,
    "dim": 128,
    "anchor": "query",
    "negatives": "windows",
    "reduction": "image",
}

# Windows and strides of the levels, 256 channels: the release; loss and negatives: the paper.
P4 = C4 | {"dim": 256}
P3 = P4 | {"map_stride": 8, "window": 32, "stride": 24}


def with_levels(moco, **levels):
    """ReSim as the difference to MoCo-v2: its levels, and one flip for both views."""
    others = {key: value for key, value in moco.items() if key != "model.levels"}
    return others | runs.flatten({"model": {"levels": levels}}) | {"views.flip": "shared"}


def settings(pretrain_id):
    recipe = train.load_recipe(pretrain_id)
    return runs.flatten(train.protocol(recipe, recipe.dataset))


def test_options_reach_what_is_built():
    recipe = train.load_recipe("in100-resim-c4", {"micro_batch": 64, "precision": "bfloat16"})
    cfg = train.runner_config(recipe, {}, images=1000, world_size=1)
    assert cfg.model.micro_batch == 64 and cfg.optim_wrapper.type == "Bfloat16OptimWrapper"
    assert "micro_batch" not in train.protocol(recipe, recipe.dataset), "it changes no number"


def test_moco_v2_is_the_reference_s():
    assert settings("in100-moco-v2") == MOCO


def test_resim_is_moco_v2_with_levels_and_one_flip():
    assert settings("in100-resim-c4") == with_levels(MOCO, c4=C4)


def test_the_imagenet_1k_recipes():
    assert settings("in1k-moco-v2-200ep") == MOCO | IN1K
    assert settings("in1k-resim-c4-200ep") == with_levels(MOCO | IN1K, c4=C4)
    assert settings("in1k-resim-fpn-200ep") == with_levels(MOCO | IN1K, p4=P4, p3=P3)
    assert settings("in1k-resim-fpn-400ep-release") == settings("in1k-resim-fpn-200ep-release") | {"epochs": 400}


def test_the_release_s_variant_differs_by_what_the_release_does_otherwise():
    assert runs.differences(settings("in1k-resim-fpn-200ep"), settings("in1k-resim-fpn-200ep-release")) == {
        "model.levels.p4.negatives": ["windows", "dense"],
        "model.levels.p3.negatives": ["windows", "dense-group"],
        "model.levels.p4.reduction": ["image", "group"],
        "model.levels.p3.reduction": ["image", "group"],
        "model.levels.p4.border": [None, "open"],
        "model.levels.p3.border": [None, "open"],
        "views.photometric": [["jitter", "grayscale", "blur"], ["blur", "jitter", "grayscale"]],
    }


def test_what_came_later_is_in_no_protocol_that_has_it_as_before():
    """So that a record of before is of the same protocol; each of these defaults is what the code did then."""
    assert train.LATER == {
        "views.blur": "gaussian",
        "model.levels.*.border": "closed",
        "model.levels.*.positives": "same",
        "model.levels.*.head": "conv3x3",
    }
    recipe = train.load_recipe("photos-resim-c4")
    assert recipe.views.blur == "gaussian" and recipe.model.levels.c4.border == "closed"
    found = settings("photos-resim-c4")
    assert "views.blur" not in found and "model.levels.c4.border" not in found
    other = train.load_recipe("photos-resim-c4", {"model.levels.c4.border": "open"})
    assert runs.flatten(train.protocol(other, other.dataset))["model.levels.c4.border"] == "open"


@pytest.mark.parametrize(("window", "stride"), [(16, 16), (48, 16), (64, 48)])
def test_a_row_of_the_ablation_differs_by_its_window_alone(window, stride):
    expected = settings("in100-resim-c4") | {"model.levels.c4.window": window, "model.levels.c4.stride": stride}
    assert settings(f"in100-resim-c4-w{window}-s{stride}") == expected


def test_supervised_is_what_its_docstring_says():
    found = settings("in100-supervised")
    assert found["epochs"] == 100 and found["milestones"] == [30, 60, 90]
    assert found["batch"] == 256 and found["optimizer.lr"] == 0.1
    assert found["views.jitter_p"] == found["views.grayscale_p"] == found["views.blur_p"] == 0


def test_mini_resim_differs_from_mini_moco_as_the_real_ones_do():
    differing = runs.differences(settings("mini-moco-v2"), settings("mini-resim-c4"))
    assert {key.removeprefix("model.levels.c4.") for key in differing} == {*C4, "model.levels", "views.flip"}
    level = train.load_recipe("mini-resim-c4").model.levels.c4
    assert [level.window / level.map_stride, level.stride / level.map_stride] == [48 / 16, 32 / 16], "in cells of C4"


@pytest.mark.parametrize(
    ("control", "changes"),
    [
        ("mini-resim-c4-permuted", {"positives"}),
        ("mini-resim-c4-whole", {"anchor"}),
        ("mini-resim-c4-w16-s16", {"window", "stride"}),
        ("mini-resim-c4-w48-s16", {"stride"}),
        ("mini-resim-c4-w64-s48", {"window", "stride"}),
        ("mini-resim-c4-dense", {"negatives"}),
        ("mini-resim-c4-overlap", {"anchor"}),
        ("mini-resim-c4-head-1x1", {"head"}),
        ("mini-resim-c4-head-mlp", {"head"}),
        ("mini-moco-v2-flip", {"views.flip"}),
        ("mini-moco-v2-long", {"epochs"}),
        *((f"mini-{method}-{n}ep", {"epochs"}) for method in ("moco-v2", "resim-c4") for n in (4, 16, 32)),
        *((f"mini-resim-c4-permuted-{n}ep", {"epochs", "positives"}) for n in (4, 16, 32)),
    ],
)
def test_a_control_differs_by_what_it_is_about_alone(control, changes):
    base = "mini-moco-v2" if "moco" in control else "mini-resim-c4"
    differing = runs.differences(settings(base), settings(control))
    assert {key.removeprefix("model.levels.c4.") for key in differing} == changes


@pytest.mark.parametrize("method", ["random", "moco-v2", "resim-c4"])
def test_photographs_change_the_data_and_the_epochs_and_keep_their_blur(method):
    mini, photos = settings(f"mini-{method}"), settings(f"photos-{method}")
    assert mini.pop("views.blur") == "boxes"
    differing = {"dataset.name", "dataset.images", "dataset.classes"} | ({"epochs"} if method != "random" else set())
    assert set(runs.differences(mini, photos)) == differing
    steps = [found["epochs"] * (found["dataset.images"] // found["batch"]) for found in (mini, photos)]
    assert steps[1] == pytest.approx(steps[0], rel=0.1)


def test_mini_windows_are_the_ablation_s_in_cells():
    for name in ("", "-w16-s16", "-w48-s16", "-w64-s48"):
        mini, full = (train.load_recipe(f"{data}-resim-c4{name}").model.levels.c4 for data in ("mini", "in100"))
        assert [mini[k] / mini.map_stride for k in ("window", "stride")] == [full[k] / 16 for k in ("window", "stride")]
    mini, full = (train.load_recipe(id).model.levels for id in ("mini-resim-fpn", "in1k-resim-fpn-200ep"))
    for name in ("p4", "p3"):
        for key in ("window", "stride"):
            assert mini[name][key] / mini[name].map_stride == full[name][key] / full[name].map_stride


def test_every_recipe_fits_itself():
    for pretrain_id in experiments.pretrain_ids():
        recipe = train.load_recipe(pretrain_id)
        train.check(recipe, recipe.dataset.images, world_size=1)


@pytest.mark.parametrize("method", ["moco-v2", "resim-c4"])
def test_a_variant_of_in100_differs_by_one_value(method):
    base, lr06, k16384 = (settings(f"in100-{method}{variant}") for variant in ("", "-lr06", "-k16384"))
    assert runs.differences(base, lr06) == {"optimizer.lr": [0.03, 0.06]}
    assert runs.differences(base, k16384) == {"model.queue": [65536, 16384]}


@pytest.mark.parametrize(("images", "queue"), [(12669, 6554), (12669, 1638), (128117, 6554), (4000, 1024)])
def test_how_often_a_query_meets_its_own_image_among_the_negatives(images, queue):
    """docs/in100.md's (K / N)^2 / 2, by the sampler of a run; N and K a tenth of the recipes' but for mini's."""
    batch = 64
    stream = iter(draws.DrawSampler(range(images), seed=0, batch_size=batch, drop_last=True))
    before: dict[int, int] = {}
    met = total = 0
    for position in range(3 * (images // batch * batch)):
        _, image = next(stream)
        if position >= images:
            total += 1
            met += position // batch * batch - before.get(image, -images) <= queue
        before[image] = position
    assert met / total == pytest.approx((queue / images) ** 2 / 2, rel=0.15)
