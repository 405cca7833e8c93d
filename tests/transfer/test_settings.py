"""What a protocol may say where building it would not tell, or not before the training."""

import copy

import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st
from mmengine.config import Config

from resim_bench import experiments
from resim_bench.cli import options
from resim_bench.errors import UserError
from resim_bench.harness.options import find
from resim_bench.settings import nodes, shown
from tests.resim_bench.json_like import JSON_LIKE, set_at
from tests.transfer.conftest import TINY, TINY_COCO
from transfer import protocols, settings

WHOLE, NATURAL, SHARE = "give a whole number of at least 1", "give a whole number of at least 0", "a number from 0 to 1"
OWN, NUMBER, CLASSES = "give one of its own settings, ", "give a number", "give names, each once"
HOOKS, SCHEDULERS = (
    "give hooks, of which BackboneHook and PreciseBNHook come first",
    "give schedulers, each with its type",
)

REFUSED = {  # what the command line has: what the sentence says behind "SETTING is VALUE: "
    # accepted once, without a word
    "model.train_cfg.rcnn.sampler.num=0": WHOLE,
    "model.train_cfg.rcnn.sampler.num=-1": WHOLE,
    "classes=[]": CLASSES,
    "default_hooks.logger.type=Nope": "give LoggerHook",
    # a traceback once, or after the whole training
    "model=5": OWN,
    "model.backbone=5": OWN + "type, depth",
    "train_dataloader=5": OWN + "batch_size",
    "optim_wrapper=5": OWN + "type, optimizer",
    "param_scheduler=5": SCHEDULERS,
    "classes=5": CLASSES,
    "default_hooks=5": OWN + "logger",
    "env_cfg=5": OWN,
    "test_evaluator=5": OWN,
    "train_cfg=5": OWN,
    "expected_data=5": OWN + "name, train_images",
    "custom_hooks=[]": HOOKS,
    "test_evaluator.type=Nope": "give VOCAveragePrecision or COCOAveragePrecision",
    "train_dataloader.dataset.type=Nope": "give VOCFolder, COCOFolder",
    "train_cfg.type=EpochBasedTrainLoop": "give IterBasedTrainLoop",
    "precise_bn_iters=-1": NATURAL,
    "precise_bn_iters=1.5": NATURAL,
    "train_dataloader.num_workers=-1": NATURAL,
    "test_dataloader.num_workers=-1": NATURAL,
    "optim_wrapper.optimizer.lr=-1": "give a number above 0",
    "optim_wrapper.optimizer.lr=nan": "give a finite number",
    "default_hooks.logger.interval=0": WHOLE,
    "model.backbone.frozen_stages=9": "give -1 to 3",
    # their siblings
    "total_batch=0": WHOLE,
    "total_batch=2.5": WHOLE,
    "total_batch=true": NUMBER,
    "total_batch=None": NUMBER,
    "max_iters=0": WHOLE,
    "max_iters=many": NUMBER,
    "max_iters=1e400": "give a finite number",
    "classes=a,b,a": CLASSES,
    "classes=1,2": CLASSES,
    "classes=": CLASSES,
    "classes=[[a],[b]]": CLASSES,
    "data_root=5": "give a name",
    "expected_data.classes=0": WHOLE,
    "default_scope=mmseg": "give mmdet",
    "custom_hooks=5": HOOKS,
    "custom_hooks=None": HOOKS,
    "custom_hooks.0=5": OWN + "type, path",
    "default_hooks.logger=None": OWN,
    "model=None": OWN,
    "model.roi_head=None": OWN,
    "model.backbone.frozen_stages=-2": "give -1 for none",
    "model.backbone.strides=1": "give a list of whole numbers",
    "model.backbone.strides=[1,0,1]": "give a list of whole numbers",
    "model.backbone.style=tf": "give pytorch or caffe",
    "model.roi_head.shared_head.stride=0": WHOLE,
    "model.roi_head.bbox_roi_extractor.featmap_strides=[-1]": "give a list of numbers above 0",
    "model.rpn_head.bbox_coder.target_means=0": "give four numbers",
    "model.backbone.depth=18.0": "give 18, 34",
    "model.roi_head.shared_head.depth=19": "give 18, 34",
    "model.data_preprocessor.std=[0,0,0]": "give three numbers above 0",
    "model.data_preprocessor.mean=5": "give three numbers",
    "model.data_preprocessor.mean=[nan,0,0]": "give a finite number",
    "model.rpn_head.anchor_generator.scales=[0]": "give a list of numbers above 0",
    "model.rpn_head.anchor_generator.strides=4": "give a list of numbers above 0",
    "model.train_cfg.rpn.sampler.pos_fraction=2": SHARE,
    "model.train_cfg.rpn.assigner.pos_iou_thr=7": SHARE,
    "model.train_cfg.rcnn.sampler=5": OWN,
    "model.test_cfg.rpn.max_per_img=0": WHOLE,
    "model.test_cfg.rpn.nms_pre=-1": WHOLE,
    "model.test_cfg.rcnn.score_thr=-1": SHARE,
    "model.test_cfg.rcnn.nms.iou_threshold=50": SHARE,
    "model.test_cfg.rcnn.nms=None": OWN + "type, iou_threshold",
    "model.test_cfg.rcnn.nms.type=print": "give nms or soft_nms",
    "train_dataloader.dataset.split=test": "give train",
    "test_dataloader.dataset.split=train": "give test",
    "train_dataloader.dataset.pipeline=5": "give transforms",
    "train_dataloader.dataset.pipeline.1.with_bbox=maybe": "give true or false",
    "train_dataloader.dataset.pipeline.3.prob=2": SHARE,
    "train_dataloader.dataset.pipeline.0.imdecode_backend=cv2": "give pillow",
    "scales=[]": "give pairs of pixels",
    "scales=[(0,5)]": "give pairs of pixels",
    "scales=(128,48)": "give pairs of pixels",
    "test_scale=(1e30,5)": "no side is above 16384",
    "test_scale=99999999": "no side is above 16384",
    "test_scale=(0,5)": "give width and height in pixels",
    "test_scale=96": "give width and height in pixels",
    "optim_wrapper.optimizer=5": OWN,
    "optim_wrapper.optimizer.momentum=2": SHARE,
    "optim_wrapper.optimizer.weight_decay=-1": "give a number of at least 0",
    "optim_wrapper.paramwise_cfg.norm_decay_mult=-1": "give a number of at least 0",
    "param_scheduler.0=5": OWN,
    "param_scheduler.0.start_factor=2": SHARE,
    "param_scheduler.0.by_epoch=1": "give true or false",
    "param_scheduler.1.milestones=5": "give iterations",
    "param_scheduler.1.gamma=0": "give a number above 0",
}

SENTENCES = {
    "custom_hooks.0.type=Nope": HOOKS,
    "model.backbone.nope=1": "there is no setting model.backbone.nope: model.backbone has type, depth",
    "model.backbone.depth.nope=1": "there is no setting model.backbone.depth.nope: model.backbone.depth is 18",
    "custom_hooks.9.path=1": "there is no setting custom_hooks.9.path: custom_hooks has the items 0 to 2",
    "custom_hooks.0.path=x": "custom_hooks.0.path is set by --backbone: give that instead",
    "train_dataloader.batch_size=3": "train_dataloader.batch_size is set by total_batch: give that instead",
    "norm_cfg.type=BN": "changes nothing in a transfer: change the norm_cfg of each part of model instead",
    "train_pipeline.2.scales=[(9,9)]": "change train_dataloader.dataset.pipeline instead",
    "val_dataloader=None": "val_dataloader changes nothing",
    "test_dataloader.batch_size=8": "test_dataloader.batch_size belongs to the protocol and to no record: leave it out",
    "test_dataloader.sampler.shuffle=True": "test_dataloader.sampler.shuffle belongs to the protocol",
    "init_neck=True": "init_neck is True, and the model has no neck to load: leave it out",
    "default_hooks.checkpoint.interval=5": "default_hooks.checkpoint.interval changes nothing",
    "test_evaluator.type=COCOAveragePrecision": "VOCFolder is tested by VOCAveragePrecision",
    "train_dataloader.dataset.type=COCOFolder": "is COCOFolder and that of test_dataloader VOCFolder",
    "total_batch=0 max_iters=0": "total_batch is 0: give a whole number of at least 1 (and 1 more)",
}

LEGAL = {
    "classes=ace": ["ace"],
    "classes=abc,d": ["abc", "d"],
    "classes=['1','palm tree']": ["1", "palm tree"],
    "classes=None": None,
    "precise_bn_iters=0": 0,
    "total_batch=1": 1,
    "test_dataloader.num_workers=0": 0,
    "model.backbone.frozen_stages=0": 0,
    "model.backbone.init_cfg=None": None,
    "optim_wrapper.type=AmpOptimWrapper": "AmpOptimWrapper",
    "test_scale=(128,64)": (128, 64),
    "param_scheduler.1.milestones=[50]": [50],
    "model.test_cfg.rcnn.score_thr=0": 0,
}


@pytest.fixture(autouse=True)
def _read_once(monkeypatch):
    """MMDetection's base configs take a tenth of a second to read."""
    monkeypatch.setattr(Config, "fromfile", lambda file: Config(copy.deepcopy(SHIPPED[file.stem])))


SHIPPED = {
    i: Config.fromfile(experiments.transfer_ids()[i]).to_dict() for i in ("mini-voc-full", "coco-1x", "mini-coco-1x")
}


def load(text, transfer_id="mini-voc-full"):
    return protocols.load(transfer_id, dict(map(options.parse, text.split("|"))))


@pytest.mark.parametrize("text", REFUSED)
def test_a_setting_that_cannot_be_is_named_with_what_may_be_given(text):
    name, value = options.parse(text)
    with pytest.raises(UserError) as refusal:
        load(text)
    assert str(refusal.value).startswith(f"{name} is {shown(value)}: give ")
    assert REFUSED[text] in str(refusal.value)


@pytest.mark.parametrize("text", SENTENCES)
def test_what_belongs_elsewhere_or_does_not_go_together_is_said(text):
    with pytest.raises(UserError) as refusal:
        load(text.replace(" ", "|"))
    assert SENTENCES[text] in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", LEGAL)
def test_what_is_unusual_but_works_stays_legal(text):
    found = find(load(text), options.parse(text)[0])
    assert found == LEGAL[text]


def test_masks_are_tested_where_there_is_a_mask_head():
    changes = {"test_evaluator": {"kinds": ["box"]}}
    assert protocols.load("coco-1x", changes).test_evaluator.kinds == ["box"]
    with pytest.raises(UserError, match="test_evaluator.kinds is \\['boxes'\\]: give one or more of box, mask"):
        protocols.load("coco-1x", {"test_evaluator": {"kinds": ["boxes"]}})
    with pytest.raises(UserError, match="mask_head is none, and the test measures masks: leave it as it is"):
        load("model.roi_head.mask_head=None", "coco-1x")
    protocols.load("coco-1x", changes | {"model.roi_head.mask_head": None})


@pytest.mark.parametrize(("transfer_id", "changes"), [("mini-voc-full", TINY), ("coco-1x", TINY_COCO)])
def test_the_schema_changes_nothing(transfer_id, changes):
    assert protocols.load(transfer_id).to_dict() == SHIPPED[transfer_id]
    expected = Config(copy.deepcopy(SHIPPED[transfer_id]))
    expected.merge_from_dict(changes)
    found = protocols.load(transfer_id, changes).to_dict()
    assert {**found, "param_scheduler": 0} == {**expected.to_dict(), "param_scheduler": 0}, "shortened, no more"


PLACES = [(i, name) for i, config in SHIPPED.items() for name in config]
DEEP_PLACES = [(i, name) for i, config in SHIPPED.items() for name, _ in nodes(config)]


@bounded(max_examples=150, deadline=None)
@given(place=st.one_of(st.sampled_from(PLACES), st.sampled_from(DEEP_PLACES)), value=JSON_LIKE)
def test_any_value_anywhere_is_legal_or_one_sentence(place, value):
    transfer_id, name = place
    config = copy.deepcopy(SHIPPED[transfer_id])
    set_at(config, name, value)
    try:
        settings.check_protocol(config)
    except UserError as refusal:
        assert len(str(refusal).splitlines()) == 1 and len(str(refusal)) < 600


@bounded(max_examples=100, deadline=None)
@given(place=st.one_of(st.sampled_from(PLACES), st.sampled_from(DEEP_PLACES)), value=JSON_LIKE)
def test_any_option_is_legal_or_one_sentence(place, value):
    transfer_id, name = place
    config = Config(copy.deepcopy(SHIPPED[transfer_id]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, "fromfile", lambda file: config)
        try:
            cfg = protocols.load(transfer_id, {name: value})
            protocols.resolve(cfg, data="x", classes=["a"], seed=0, backbone="b")
        except UserError as refusal:
            assert len(str(refusal).splitlines()) == 1 and len(str(refusal)) < 600


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("model.rpn_head.anchor_generator.base_sizes=[0,4]", "give a list of numbers above 0"),
        ("model.roi_head.bbox_roi_extractor.finest_scale=0", "give a number above 0"),
    ],
)
def test_what_stands_in_a_small_pyramid_s_config_alone_is_checked_too(text, remedy):
    with pytest.raises(UserError, match=remedy):
        load(text, "mini-coco-1x")


def test_a_sampler_s_square_images_are_wide_or_tall():
    """A setting that the paper's protocols alone have."""
    with pytest.raises(UserError, match="sampler.square is 'round': give wide or tall"):
        load("train_dataloader.sampler.square=round", "coco-1x")
