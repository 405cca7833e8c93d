"""A detector in another precision: float32 where it has to be, in the record by name, and by default not there."""

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, DefaultScope
from torch.utils._pytree import tree_leaves

from resim_bench import record
from resim_bench.errors import UserError
from resim_bench.harness import trace
from tests.transfer.conftest import TINY, TINY_COCO
from tests.transfer.helpers import detector, resolved
from transfer import protocols, train

OTHERS = ("tf32", "bfloat16")


@pytest.mark.parametrize("transfer_id", ["voc-full", "mini-voc-frozen", "coco-1x"])
def test_the_default_is_in_no_summary(transfer_id):
    cfg = resolved(transfer_id)
    assert cfg.precision == "float32" and "precision" not in protocols.summary(cfg)
    assert protocols.for_runner(cfg).to_dict() == cfg.to_dict()


@pytest.mark.parametrize("precision", OTHERS)
def test_another_is_a_deviation_of_its_name_alone(precision):
    shipped, run = (protocols.summary(resolved(options=options)) for options in ({}, {"precision": precision}))
    assert protocols.deviations(shipped, run) == {"precision": ["float32", precision]}


def test_the_runner_reads_it_where_it_is_used():
    tf32, bfloat16 = (protocols.for_runner(resolved(options={"precision": precision})) for precision in OTHERS)
    assert tf32.custom_hooks[2] == {"type": "Float32Hook", "tf32": True} and tf32.optim_wrapper.type == "OptimWrapper"
    assert bfloat16.custom_hooks[2] == {"type": "Float32Hook"}
    assert bfloat16.optim_wrapper.type == "Bfloat16OptimWrapper" and bfloat16.optim_wrapper.optimizer.lr == 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float16"}, "precision is 'float16': give float32, tf32 or bfloat16"),
        (
            {"precision": "bfloat16", "optim_wrapper.type": "AmpOptimWrapper"},
            "precision is bfloat16 and optim_wrapper.type AmpOptimWrapper: give one of them",
        ),
    ],
)
def test_what_it_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        protocols.load("voc-full", options)


def losses(precision, devkit, backbone_path, work_dir):
    """Of two iterations, and the record."""
    options = TINY | {"max_iters": 2, "default_hooks.logger.interval": 1, "precision": precision}
    path = train.run("mini-voc-full", backbone_path, data=devkit, work_dir=work_dir, cfg_options=options)
    (run_dir,) = (work_dir / "transfer").glob("*/*/*")
    return [line["loss"] for line in trace.progress(run_dir)], record.read(path)["transfer"]


def test_bfloat16_trains_as_float32_does_and_is_recorded(devkit, backbone_path, tmp_path):
    (exact, plain), (rounded, side) = (
        losses(precision, devkit, backbone_path, tmp_path / precision) for precision in ("float32", "bfloat16")
    )
    assert len(exact) == 2 and rounded != exact, "bfloat16 has been used"
    assert rounded == pytest.approx(exact, rel=0.03)
    assert "precision" not in plain["protocol"] and "precision" not in plain["deviations"]
    assert side["deviations"] == plain["deviations"] | {"precision": ["float32", "bfloat16"]}


@pytest.mark.parametrize(
    ("transfer_id", "tiny", "folder"), [("mini-voc-full", TINY, "devkit"), ("coco-1x", TINY_COCO, "coco_folder")]
)
def test_what_does_not_bear_bfloat16_gets_float32(transfer_id, tiny, folder, request):
    """Layers compute in bfloat16; RoI pooling, targets, NMS and losses see float32 alone."""
    cfg = protocols.for_runner(
        resolved(transfer_id, tiny | {"precision": "bfloat16"}, data=request.getfixturevalue(folder))
    )
    cfg.train_dataloader.dataset.classes = None
    model = detector(transfer_id, tiny).train()
    with DefaultScope.overwrite_default_scope("mmdet"):
        images = DATASETS.build(cfg.train_dataloader.dataset)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    layers, borders = set(), set()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(lambda part, inputs, output: layers.add(output.dtype))
    head = model.roi_head
    poolings = [pooling for pooling in (head.bbox_roi_extractor, getattr(head, "mask_roi_extractor", None)) if pooling]
    for part in (model.rpn_head, head.bbox_head, *([head.mask_head] if head.with_mask else [])):
        for name in ("predict_by_feat", "loss_by_feat", "loss_and_target", "get_targets"):
            if hasattr(part, name):
                setattr(part, name, sees(borders, getattr(part, name)))
    for pooling in poolings:
        pooling.forward = sees(borders, pooling.forward)
    batch = model.data_preprocessor(pseudo_collate([images[0, 0], images[1, 0]]), True)
    with wrapper.optim_context(model):
        loss, _ = model.parse_losses(model(**batch, mode="loss"))
    loss.backward()
    assert layers == {torch.bfloat16} and borders == {torch.float32} and loss.dtype == torch.float32
    assert not [name for name, part in model.named_modules() if name in wrapper.float32_after and part._forward_hooks]


def sees(found, function):
    """`function`, and what it is given of numbers with a fraction."""

    def seeing(*args, **kwargs):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        found.update(tensor.dtype for tensor in tensors if tensor.is_floating_point())
        return function(*args, **kwargs)

    return seeing
