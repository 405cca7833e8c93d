"""What a recipe may say: every setting has its type, and a mistake is one sentence that names it."""

import copy

import pytest
from hypothesis import example, given
from hypothesis import settings as bounded
from hypothesis import strategies as st
from mmengine.config import Config

from pretrain import recipes, train
from pretrain.levels import stated
from resim_bench import experiments, settings
from resim_bench.cli import options
from resim_bench.errors import UserError
from resim_bench.harness import runs
from tests.resim_bench.json_like import JSON_LIKE, set_at

RECIPE = "mini-resim-c4"
WHOLE, NATURAL, SHARE = "give a whole number of at least 1", "give a whole number of at least 0", "a number from 0 to 1"
OWN, SPAN = "give one of its own settings, ", "give two numbers"
STRIDES, JITTER = "give four whole numbers, the first of them 1", "give four numbers from 0 to 1, the last"

REFUSED = {  # what the command line has: what the sentence says behind "SETTING is VALUE: "
    # accepted once, without a word
    "max_iters=0": WHOLE,
    "epochs=-1": NATURAL,
    "epochs=1.5": NATURAL,
    "epochs=nan": NATURAL,
    "model.queue=0": WHOLE,
    "model.dim=0": WHOLE,
    "model.temperature=-1": "give a number above 0",
    "model.momentum=2": SHARE,
    "model.backbone.strides=(1,2)": STRIDES,
    "model.levels.c4.map_stride=0": WHOLE,
    "model.levels.c4.map_stride=-4": WHOLE,
    "model.levels.c4.map_stride=5": "give 4, the stride that model.backbone.strides make of that map",
    "views.scale=(0,0)": SPAN,
    "views.size=1000000000000": "give a whole number of pixels from 1 to 16384",
    "monitor.size=0": "give a whole number of pixels from 1 to 16384",
    "views.scale=(1,0.2)": SPAN,
    "views.scale=(2,3)": SPAN,
    "views.jitter=(0.4,)": JITTER,
    "views.jitter_p=2": SHARE,
    "views.jitter_p=-1": SHARE,
    "views.jitter_p=nan": SHARE,
    "views.blur_sigma=(0,0)": SPAN,
    "dataset.name=5": "give a name",
    # a traceback once
    "model=5": OWN + "such as model.type",
    "views=5": OWN + "size, scale",
    "optimizer=5": OWN + "such as optimizer.type",
    "dataset=5": OWN + "name, root, images, classes",
    "monitor=5": OWN + "every, data",
    "model.levels=5": OWN + "c4, p4, p3",
    "model.levels.c4=5": OWN + "map_stride, window",
    "model.backbone=5": OWN + "depth, strides, width",
    "max_iters=-1": WHOLE + ", or None",
    "max_iters=1.5": WHOLE,
    "max_iters=abc": WHOLE,
    "max_iters=1e400": WHOLE,
    "epochs=0": WHOLE,
    "model.type=Nope": "give MoCo, DenseCL, Supervised",
    "model.queue=-64": WHOLE,
    "model.dim=-1": WHOLE,
    "model.dim=1.5": WHOLE,
    "model.bn_group=0": WHOLE,
    "model.backbone.depth=19": "give 18, 34, 50, 101 or 152",
    "model.backbone.width=0": WHOLE,
    "model.backbone.width=-1": WHOLE,
    "model.backbone.strides=5": STRIDES,
    "model.levels.c4.stride=0": WHOLE,
    "model.levels.c4.stride=-1": WHOLE,
    "model.levels.c4.stride=nan": WHOLE,
    "model.levels.c4.dim=0": WHOLE,
    "views.scale=5": SPAN,
    "views.scale=abc": SPAN,
    "views.scale=(nan,1)": SPAN,
    "views.jitter=(-1,0,0,0)": JITTER,
    "views.blur_sigma=5": SPAN,
    "views.blur_sigma=(-1,1)": SPAN,
    "views.photometric=5": "give a list of jitter, grayscale, blur",
    "views.photometric=(nope,)": "give a list of jitter, grayscale, blur",
    "optimizer.type=Nope": "give SGD, Adam or AdamW",
    "optimizer.lr=-1": "give a number above 0",
    "optimizer.momentum=-1": SHARE,
    "optimizer.weight_decay=-1": "give a number of at least 0",
    "milestones=5": "give epochs, such as",
    "milestones=(a,b)": "give epochs, such as",
    "micro_batch=abc": WHOLE + ", or None",
    "workers=-1": NATURAL,
    "workers=1.5": NATURAL,
    "log_interval=1.5": WHOLE,
    "monitor.images=0": WHOLE,
    # their siblings
    "batch=1.5": WHOLE,
    "batch=64.0": WHOLE,
    "batch=true": WHOLE,
    "batch=None": WHOLE,
    "micro_batch=0": WHOLE,
    "log_interval=0": WHOLE,
    "optimizer.lr=inf": "give a number above 0",
    "optimizer.lr=false": "give a number above 0",
    "optimizer.lr=0": "give a number above 0",
    "optimizer=None": OWN,
    "model=None": OWN,
    "model.levels.c4=None": OWN,
    "model.type=[1]": "give MoCo",
    "model.backbone.depth=50.0": "give 18, 34",
    "model.backbone.strides=(2,2,2,2)": STRIDES,
    "model.levels.c4.anchor=centre": "give query, overlap or view",
    "model.levels.c4.negatives=all": "give windows, dense or dense-group",
    "model.levels.c4.reduction=true": "give image, window or group",
    "model.instance_weight=-1": "give a number of at least 0",
    "views.flip=None": "give independent or shared",
    "views.jitter=(0,0,0,0.6)": JITTER,
    "views.photometric=blur": "give a list",
    "views.photometric=(blur,blur)": "each at most once",
    "precision=[float32]": "give float32, tf32 or bfloat16",
    "milestones=None": "give epochs",
    "milestones=(0,1)": "give epochs",
    "monitor.every=-1": NATURAL,
    "monitor.data=": "give a name",
    "dataset.images=0": WHOLE,
}

TOGETHER = {
    "batch=16": "process's batch of 16 is not a multiple of the batch-norm group of 32 images",
    "batch=32 model.queue=1000": "the queue of 1000 is not a multiple of the batch of 32",
    "batch=96": "the queue of 1024 is not a multiple of the batch of 96",
    "micro_batch=48": "micro_batch of 48 is not a multiple of the batch-norm group of 32 images",
    "views.size=12": "model.levels.c4.window of 12 px does not fit a view of 12 px",
    "views.size=8 model.levels.c4.window=4 model.levels.c4.negatives=dense": "averages 3 x 3 cells, and a view of 8 px",
    "views.flip=independent": 'a recipe with levels needs views.flip="shared"',
    "views.blur_sigma=(1,99)": "views.blur_sigma is up to 99 px in a view of 56 px",
    "model.bn_group=1 views.size=8 model.levels.c4.window=4": "batch norm over one image",
    "model.backbone.strides=(1,2,2,2)": "model.levels.c4.map_stride is 4: give 16",
    "model.type=Random": "there is no setting model.dim: model of type Random has type, backbone",
    "optimizer.type=AdamW": "there is no setting optimizer.momentum: optimizer of type AdamW has type, lr, betas",
    "model.queue=0 model.dim=0": "(and 1 more)",
    "model.levels.c4.nope=1": "there is no setting model.levels.c4.nope: model.levels.c4 has map_stride, window",
    "model.backbone.nope=1": "there is no setting model.backbone.nope: model.backbone has depth, strides, width",
    "nope=1": "there is no setting nope: the top level has model, views",
    "batch.nope=1": "there is no setting batch.nope: batch is 64 and has none of its own",
    "views.scale.0=0.5": "there is no setting views.scale.0: views.scale is (0.2, 1.0) and has none of its own",
    "views.scale.²=0.5": "there is no setting views.scale.²",
    "model=5 model.queue=64": "model.queue is a part of model, which is given, too",
}

LEGAL = [
    "max_iters=None",
    "max_iters=1 epochs=100",
    "milestones=()",
    "milestones=[3,1]",
    "views.scale=[0,1]",
    "views.scale=0.2,0.2",
    "views.photometric=[]",
    "views.photometric=blur,",
    "views.jitter=(0,0,0,0)",
    "model.momentum=0 model.temperature=1 model.instance_weight=0",
    "optimizer.lr=1 optimizer.momentum=0 optimizer.weight_decay=0",
    "model.backbone.depth=34 model.backbone.width=1",
    "views.size=32 batch=8 model.queue=16 model.bn_group=4",
    "model.bn_group=1",
    "micro_batch=32 precision=bfloat16 workers=0 log_interval=1 monitor.every=1",
]


def of(text):
    return dict(map(options.parse, text.split()))


@pytest.mark.parametrize("text", REFUSED)
def test_a_setting_that_cannot_be_is_named_with_what_may_be_given(text):
    ((name, value),) = of(text).items()
    with pytest.raises(UserError) as refusal:
        train.load_recipe(RECIPE, {name: value})
    assert str(refusal.value).startswith(f"{name} is {settings.shown(value)}: give ")
    assert REFUSED[text] in str(refusal.value)


@pytest.mark.parametrize("text", TOGETHER)
def test_settings_that_do_not_go_together_are_named(text):
    with pytest.raises(UserError) as refusal:
        train.check(train.load_recipe(RECIPE, of(text)), images=4000, world_size=1)
    assert TOGETHER[text] in str(refusal.value)


@pytest.mark.parametrize("text", LEGAL)
def test_what_is_unusual_but_works_stays_legal(text):
    recipe = train.load_recipe(RECIPE, of(text))
    for name, value in of(text).items():
        assert runs.flatten(recipe.to_dict())[name] == value, "as it was given"


@pytest.mark.parametrize(
    ("pretrain_id", "changes", "sentence"),
    [
        ("mini-resim-fpn", {"model.levels.p3.dim": 8}, "both p4 and p3, of the same dim"),
        ("mini-resim-fpn", {"model.levels.p3.map_stride": 8}, "p3.map_stride is 8: give 4"),
        (
            "mini-resim-fpn",
            {"model.levels": {"p3": {"head": "mlp"}}},
            "no setting model.levels.p3.head: model.levels.p3",
        ),
        ("mini-moco-v2", {"model.levels": {"p5": {}}}, "no setting model.levels.p5: model.levels has c4, p4, p3"),
        ("mini-moco-v2", {"model.levels": {"c4": {"dim": 8}}}, "model.levels.c4.map_stride is missing"),
        ("in100-supervised", {"micro_batch": 32}, "micro_batch is for MoCo and what is built on it"),
        ("in100-supervised", {"model.num_classes": 0}, "model.num_classes is 0"),
        ("mini-random", {"calibration_batches": -1}, "calibration_batches is -1"),
        ("mini-random", {"calibration_batches": None}, "calibration_batches is None"),
        ("mini-random", {"batch": 1, "views.size": 8}, "batch norm over one image"),
        ("mini-moco-v2", {"batch": {"size": 3}}, "cannot be changed like this"),
    ],
)
def test_other_methods_have_settings_of_their_own(pretrain_id, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        train.load_recipe(pretrain_id, changes)


@pytest.mark.parametrize(
    ("text", "images", "world_size", "sentence"),
    [
        ("batch=64", 63, 1, "the batch of 64 is larger than the data set of 63 images"),
        ("batch=64", 64, 3, "the batch of 64 is not divisible by 3 processes"),
        ("batch=64", 64, 4, "a process's batch of 16 is not a multiple of the batch-norm group of 32 images"),
        ("micro_batch=32", 64, 2, "micro_batch is for MoCo and what is built on it, in one process"),
    ],
)
def test_images_and_processes_have_to_do_for_the_batch(text, images, world_size, sentence):
    recipe = train.load_recipe(RECIPE, of(text))
    with pytest.raises(UserError, match=sentence):
        train.check(recipe, images, world_size)
    train.check(recipe, images=64, world_size=1)


def test_an_untrained_recipe_has_no_epochs():
    assert train.load_recipe("mini-random", {"epochs": 0}).epochs == 0


def test_of_several_recipes_each_is_checked_before_any_is_trained():
    with pytest.raises(UserError, match="epochs is 0: give a whole number"):
        train.options_of_each(["mini-random", "mini-moco-v2"], {"epochs": 0})


@pytest.mark.parametrize("pretrain_id", experiments.pretrain_ids())
def test_the_schema_changes_nothing(pretrain_id):
    """But for what levels have by default, which a protocol always states."""
    shipped = Config.fromfile(experiments.pretrain_ids()[pretrain_id]).to_dict()
    shipped["model"] |= {"levels": stated(shipped["model"]["levels"])} if "levels" in shipped["model"] else {}
    assert train.load_recipe(pretrain_id).to_dict() == shipped


SHIPPED = {i: train.load_recipe(i).to_dict() for i in ("mini-resim-c4", "mini-resim-fpn", "in100-supervised", "random")}
PLACES = [(i, name) for i, recipe in SHIPPED.items() for name, _ in settings.nodes(recipe)]


@bounded(max_examples=300, deadline=None)
@given(place=st.sampled_from(PLACES), value=JSON_LIKE)
@example(place=("in100-supervised", "dataset"), value={"a": None, "type": 10**600})
def test_any_value_anywhere_is_legal_or_one_sentence(place, value):
    pretrain_id, name = place
    recipe = copy.deepcopy(SHIPPED[pretrain_id])
    set_at(recipe, name, value)
    before = copy.deepcopy(recipe)
    try:
        settings.check(recipes.schema(), recipe)
    except UserError as refusal:
        assert len(str(refusal).splitlines()) == 1 and len(str(refusal)) < 500
    assert repr(recipe) == repr(before)
