"""A protocol as it is built, and the values that MoCo's protocols of VOC and COCO have in common."""

import ast
import itertools
from pathlib import Path

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, DefaultScope

from transfer import datasets, protocols

CLASSES = [f"class {i}" for i in range(20)]
TINY_FPN = {"model.backbone.depth": 18, "model.neck.in_channels": [64, 128, 256, 512]}
"""Options on top of coco-*: a ResNet-18."""


def resolved(transfer_id="voc-full", options=None, world_size=1, data="nowhere", classes=CLASSES):
    return protocols.resolve(
        protocols.load(transfer_id, options),
        data=data,
        classes=classes,
        seed=0,
        backbone="b.safetensors",
        world_size=world_size,
    )


def detector(transfer_id="mini-voc-full", options=None):
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(protocols.load(transfer_id, options).model)
        model.init_weights()
    return revert_sync_batchnorm(model)


class Built:
    """The model, the data sets, the optimiser and the schedule of a protocol."""

    def __init__(self, transfer_id, data, classes=CLASSES):
        self.cfg = resolved(transfer_id, data=data, classes=classes)
        for loader in (self.cfg.train_dataloader, self.cfg.test_dataloader):
            loader.dataset.classes = None
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope("mmdet"):
            self.model = MODELS.build(self.cfg.model).train()
            self.model.init_weights()
            self.optim = build_optim_wrapper(self.model, self.cfg.optim_wrapper)
            self.train = DATASETS.build(self.cfg.train_dataloader.dataset)
            self.test = DATASETS.build(self.cfg.test_dataloader.dataset)
        self.trunk, self.rpn, self.roi = self.model.backbone, self.model.rpn_head, self.model.roi_head
        self.box = self.roi.bbox_head


def norms(module):
    return [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]


def kind(*modules):
    return {type(m).__mro__[1] for module in modules for m in norms(module)}


def spread_is(weight, expected):
    return weight.std().item() == pytest.approx(expected, rel=0.01)


def sampler(s):
    return (type(s).__name__, s.num, s.pos_fraction, s.neg_pos_ub, s.add_gt_as_proposals)


def assigner(a):
    return (a.pos_iou_thr, a.neg_iou_thr, a.match_low_quality)


def transform(dataset, name):
    return next(t for t in dataset.pipeline.transforms if type(t).__name__ == name)


def steps(dataset) -> list[str]:
    """The pipeline's transforms by name; the first is a function."""
    return [getattr(t, "__name__", type(t).__name__) for t in dataset.pipeline.transforms]


def decays(b):
    """Weight decay of all other parameters, and of those of norms."""
    of_norms = {id(p) for m in norms(b.model) for p in m.parameters()}
    found = {True: set(), False: set()}
    for group in b.optim.param_groups:
        for parameter in group["params"]:
            found[id(parameter) in of_norms].add(group["weight_decay"])
    return found[False], found[True]


def check_learning_rate(cfg, warm_up, steps, until, rate=0.02, first=0.001):
    """Detectron2's, at every iteration before `until`."""
    settings = {key: value for key, value in cfg.optim_wrapper.optimizer.items() if key != "type"}
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], **settings)
    schedulers = [PARAM_SCHEDULERS.build(s, default_args=dict(optimizer=optimiser)) for s in cfg.param_scheduler]
    for iteration in range(until):
        warm = min(iteration / warm_up, 1)
        expected = rate * (first * (1 - warm) + warm) * 0.1 ** sum(iteration >= step for step in steps)
        assert optimiser.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-9), iteration
        optimiser.step()
        for scheduler in schedulers:
            scheduler.step()


def differences(one_id, other_id):
    """{setting: [one, other]} of two protocols, by what a record says of them."""
    one, other = (protocols.summary(resolved(transfer_id)) for transfer_id in (one_id, other_id))
    return {key: [one.get(key), other.get(key)] for key in one | other if one.get(key) != other.get(key)}


def comparisons(row, subject):
    """What a row compares: (source, found, expected) of each `==` in its lambda, (source, truth, True) of the rest.

    So that a red row says what was found: a lambda alone says False.
    """
    source = ast.parse(Path(row.__code__.co_filename).read_text())
    lambdas = (node for node in ast.walk(source) if isinstance(node, ast.Lambda))
    node = next(one for one in lambdas if one.lineno == row.__code__.co_firstlineno)  # the outermost of its line
    names = {**row.__globals__, node.args.args[0].arg: subject}

    def value(part):
        return eval(compile(ast.Expression(part), "row", "eval"), names)

    return list(_comparisons(node.body, value, names))


def _comparisons(node, value, names):
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        for part in node.values:
            yield from _comparisons(part, value, names)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Lambda):
        names[node.func.args.args[0].arg] = value(node.args[0])
        yield from _comparisons(node.func.body, value, names)
    elif isinstance(node, ast.Compare) and all(isinstance(op, ast.Eq) for op in node.ops):
        sides = [node.left, *node.comparators]
        for left, right in itertools.pairwise(sides):
            yield ast.unparse(left), value(left), value(right)
    else:
        yield ast.unparse(node), bool(value(node)), True


def check_row(name, row, subject):
    """Hold what a row finds against what it expects."""
    for source, found, expected in comparisons(row, subject):
        assert found == expected, f"{name}: {source} is {found!r}, and has to be {expected!r}"


SHARED = {
    "backbone: STRIDE_IN_1X1 False": lambda b: (
        (
            b.trunk.layer2[0].conv1.stride,
            b.trunk.layer2[0].conv2.stride,
        )
        == ((1, 1), (2, 2))
    ),
    "backbone: no zero-initialised residual": lambda b: (b.trunk.layer1[0].bn3.weight == 1).all(),
    "stem/BN: eps 1e-5, momentum 0.1": lambda b: {(m.eps, m.momentum) for m in norms(b.model)} == {(1e-5, 0.1)},
    "stem: 7x7 stride 2, max-pool": lambda b: (
        (b.trunk.conv1.kernel_size, b.trunk.conv1.stride) == ((7, 7), (2, 2))
        and (b.trunk.maxpool.kernel_size, b.trunk.maxpool.stride) == (3, 2)
    ),
    "backbone freeze: nothing": lambda b: all(p.requires_grad for p in b.model.parameters()),
    "backbone norm: SyncBN, training": lambda b: (
        kind(b.trunk) == {torch.nn.SyncBatchNorm} and all(m.training for m in norms(b.trunk))
    ),
    "predictor init": lambda b: spread_is(b.box.fc_cls.weight, 0.01) and spread_is(b.box.fc_reg.weight, 0.001),
    "RPN matching": lambda b: (
        assigner(b.rpn.assigner) == (0.7, 0.3, True)
        and b.rpn.assigner.min_pos_iou == 0
        and type(b.rpn.assigner).__name__ == "Detectron2Assigner"
        and type(b.rpn).__name__ == "Detectron2RPNHead"
    ),
    "RPN sampling": lambda b: (
        sampler(b.rpn.sampler) == ("RandomSampler", 256, 0.5, -1, False) and b.rpn.train_cfg.allowed_border == -1
    ),
    "RPN loss": lambda b: (
        b.rpn.loss_cls.use_sigmoid
        and (type(b.rpn.loss_bbox).__name__, b.rpn.loss_bbox.loss_weight, b.rpn.loss_cls.loss_weight)
        == ("L1Loss", 1, 1)
    ),
    "RPN box weights": lambda b: tuple(b.rpn.bbox_coder.stds) == (1, 1, 1, 1),
    "RoI matching": lambda b: assigner(b.roi.bbox_assigner) == (0.5, 0.5, False),
    "RoI sampling": lambda b: sampler(b.roi.bbox_sampler) == ("RandomSampler", 512, 0.25, -1, True),
    "box targets": lambda b: (
        (tuple(b.box.bbox_coder.stds), b.box.reg_class_agnostic, type(b.box.loss_bbox).__name__)
        == ((0.1, 0.1, 0.2, 0.2), False, "L1Loss")
    ),
    "box loss": lambda b: (
        not b.box.loss_cls.use_sigmoid and (b.box.loss_cls.loss_weight, b.box.loss_bbox.loss_weight) == (1, 1)
    ),
    "delta clamp": lambda b: (
        b.box.bbox_coder.decode(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[0.0, 0, 99, 99]]))[0, 2].item()
        == pytest.approx(0.5 + 0.5 * 1000 / 16)
    ),
    "test": lambda b: (
        lambda c: (c.score_thr, c.nms.type, c.nms.iou_threshold, c.max_per_img) == (0.05, "nms", 0.5, 100)
    )(b.roi.test_cfg),
    "colour, mean, std": lambda b: (
        (
            b.model.data_preprocessor._channel_conversion,
            b.model.data_preprocessor.mean.flatten().tolist(),
            b.model.data_preprocessor.std.flatten().tolist(),
        )
        == (True, pytest.approx([123.675, 116.28, 103.53]), pytest.approx([58.395, 57.12, 57.375]))
    ),
    "flip": lambda b: (
        (transform(b.train, "RandomFlip").prob, transform(b.train, "RandomFlip").direction) == (0.5, "horizontal")
    ),
    "no other augmentation": lambda b: (
        steps(b.train) == ["read_pixels", "LoadAnnotations", "RandomChoiceResize", "RandomFlip", "PackDetInputs"]
    ),
    "test resize": lambda b: (
        (transform(b.test, "Resize").scale, transform(b.test, "Resize").keep_ratio) == ((1333, 800), True)
        and transform(b.test, "Resize").backend == "pillow"
    ),
    "Pillow decodes": lambda b: {d.pipeline.transforms[0] for d in (b.train, b.test)} == {datasets.read_pixels},
    "batching": lambda b: (
        (b.cfg.train_dataloader.batch_size, dict(b.cfg.train_dataloader.sampler))
        == (16, dict(type="DrawSampler", batch_size=16, group_by_aspect=True, square="tall"))
    ),
    "optimiser": lambda b: (
        type(b.optim.optimizer) is torch.optim.SGD
        and {(g["lr"], g["momentum"], g["nesterov"], g["dampening"]) for g in b.optim.param_groups}
        == {(0.02, 0.9, False, 0)}
    ),
    "optimiser: decay 1e-4 on weights and biases, none on norms": lambda b: decays(b) == ({0.0001}, {0.0}),
    "grad clip: off": lambda b: not b.optim.clip_grad_kwargs,
    "PreciseBN": lambda b: [h.num_iters for h in b.cfg.custom_hooks if h.type == "PreciseBNHook"] == [200],
    "eval: the last iterate": lambda b: b.cfg.val_cfg is None and b.cfg.test_cfg.type == "TestLoop",
    "precision: float32, no TF32": lambda b: (
        type(b.optim).__name__ == "OptimWrapper" and "Float32Hook" in [h.type for h in b.cfg.custom_hooks]
    ),
}
