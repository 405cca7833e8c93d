"""Detection: each stage of the protocols as they are configured, beside what Detectron2 computes of the same input."""

import functools

import mmcv
import numpy as np
import torch
from mmdet.structures.mask import PolygonMasks
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from mmengine.structures import InstanceData

from resim_bench.record import ERRORS
from tests.conformance.certificate import apart, distance, golden, quantity, relative
from transfer import errors, protocols
from transfer.detections import Detections, Found, Images, Truth
from transfer.metrics import as_printed, voc_average_precision

CHANGES: dict = {}  # of the protocols: the tests put in what has to turn a line red
TRAINABLE = {"voc-full": 171, "voc-frozen": 42, "coco-1x": 209, "coco-1x-release": 176}


def protocol(transfer_id: str):
    """The protocol as a run resolves it."""
    loaded = protocols.load(transfer_id)
    loaded.merge_from_dict(CHANGES)
    classes = [f"class {number}" for number in range(loaded.model.roi_head.bbox_head.num_classes)]
    return protocols.resolve(loaded, data="nowhere", classes=classes, seed=0, backbone="b")


def detector(transfer_id: str):
    """Its detector, in training mode."""
    return _build(transfer_id, str(CHANGES))


@functools.lru_cache(maxsize=4)
def _build(transfer_id: str, _changes: str):
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(protocol(transfer_id).model).train()


def instances(**values) -> InstanceData:
    """As MMDetection has them."""
    return InstanceData(**values)


def metas(sizes) -> list[dict]:
    """Of images of these (h, w), in a batch padded to the largest."""
    padded = tuple(int(side) for side in np.max(sizes, axis=0))
    shapes = [tuple(int(side) for side in size) for size in sizes]
    return [{"img_shape": s, "ori_shape": s, "pad_shape": padded, "scale_factor": (1.0, 1.0)} for s in shapes]


def boxes_of(rows: torch.Tensor, image: int = 0) -> torch.Tensor:
    """As regions of interest: the image's number first."""
    return torch.cat([rows.new_full((len(rows), 1), image), rows], dim=1)


@quantity("cell anchors", "Detectron2", "15 of VOC", 1e-5)
def cell_anchors():
    given = golden("anchors")
    (anchors,) = detector("voc-full").rpn_head.prior_generator.base_anchors
    return relative(anchors, given["voc_cell"][given["voc_order"]])


@quantity("grid anchors", "Detectron2", "10,080 of VOC, 3,216 of COCO", 1e-5)
def grid_anchors():
    given = golden("anchors")
    found = []
    for kind, transfer_id, every in (("voc", "voc-full", 1), ("coco", "coco-1x", 14)):
        sizes = [tuple(size) for size in given[f"{kind}_maps"].tolist()]
        anchors = torch.cat(detector(transfer_id).rpn_head.prior_generator.grid_priors(sizes, device="cpu"))
        found.append(relative(anchors[::every], given[f"{kind}_anchors"]))
    return max(found)


def _assigned(assigner, boxes, objects):
    found = assigner.assign(
        instances(priors=boxes), instances(bboxes=objects, labels=torch.zeros(len(objects), dtype=torch.long))
    )
    labels = found.gt_inds.clamp(max=1)
    return labels, found.gt_inds - 1


def _matching(kind: str):
    given = golden("matching")
    if kind == "rpn":
        boxes, assigner = golden("anchors")["voc_anchors"], detector("voc-full").rpn_head.assigner
    else:
        boxes, assigner = given["proposals"], detector("voc-full").roi_head.bbox_assigner
    labels, target = _assigned(assigner, boxes, given["objects"])
    wanted, right = given[f"{kind}_labels"].long(), given[f"{kind}_target"].long()
    return apart(labels, wanted) + apart(target[wanted == 1], right[wanted == 1])


@quantity("RPN matching: labels and objects", "Detectron2", "10,080 anchors, 16 objects", 0, unit="anchors")
def rpn_matching():
    return _matching("rpn")


@quantity("RoI matching: labels and objects", "Detectron2", "560 proposals, 16 objects", 0, unit="proposals")
def roi_matching():
    return _matching("roi")


def _coders():
    return {"rpn": detector("voc-full").rpn_head.bbox_coder, "box": detector("voc-full").roi_head.bbox_head.bbox_coder}


@quantity("box deltas", "Detectron2", "200 pairs, weights of RPN and of RoI", 1e-5)
def box_deltas():
    given = golden("box_coding")
    return max(
        relative(coder.encode(given["source"], given["target"]), given[f"{kind}_deltas"])
        for kind, coder in _coders().items()
    )


@quantity("decoded boxes", "Detectron2", "of both weights, sides above 1/62 (A8)", 1e-5)
def decoded_boxes():
    given, found = golden("box_coding"), []
    for kind, coder in _coders().items():
        noise = given[f"{kind}_noise"]
        decoded = coder.decode(given["source"], noise, max_shape=tuple(given["image"].tolist()))
        plain = (noise[:, 2:] * torch.tensor(coder.stds)[2:] > -np.log(1000 / 16)).all(1)
        found.append(relative(decoded[plain], given[f"{kind}_decoded"][plain]))
    return max(found)


def _pooled(extractor, maps, rois):
    extractor.out_channels = maps[0].shape[1]
    return extractor(tuple(maps), rois)


@quantity("RoIAlign on C4", "Detectron2", "16 boxes, 14 x 14 cells", 1e-5)
def roi_align_c4():
    given = golden("roi_align")
    rois = boxes_of(given["boxes"][0])[:16]
    return relative(_pooled(detector("voc-full").roi_head.bbox_roi_extractor, [given["c4"]], rois), given["c4_out"])


@quantity("RoIAlign on P2 to P5, levels chosen", "Detectron2", "36 boxes at 7 x 7, 12 at 14 x 14", 1e-5)
def roi_align_fpn():
    given, roi_head = golden("roi_align"), detector("coco-1x").roi_head
    maps = [given[name] for name in ("p2", "p3", "p4", "p5")]
    rois = boxes_of(given["boxes"][0])
    return max(
        relative(_pooled(roi_head.bbox_roi_extractor, maps, rois[:36]), given["box_out"]),
        relative(_pooled(roi_head.mask_roi_extractor, maps, rois[:12]), given["mask_out"]),
    )


def _proposals(kind: str, transfer_id: str, levels: int):
    given, rpn = golden("proposals"), detector(transfer_id).rpn_head
    logits = [given[f"{kind}_in_logits{level}"] for level in range(levels)]
    deltas = [given[f"{kind}_in_deltas{level}"] for level in range(levels)]
    found = rpn.predict_by_feat(
        logits, deltas, batch_img_metas=metas(given[f"{kind}_sizes"].tolist()), cfg=rpn.test_cfg
    )
    return max(distance(image.bboxes, given[f"{kind}_boxes{number}"]) for number, image in enumerate(found))


@quantity("proposals of VOC, 6000/1000", "Detectron2", "2 images, compared as sets", 1e-5)
def proposals_voc():
    return _proposals("voc", "voc-full", 1)


@quantity("proposals of COCO, 1000/1000", "Detectron2", "2 images, 5 levels, compared as sets", 1e-5)
def proposals_coco():
    return _proposals("coco", "coco-1x", 5)


@quantity("detections", "Detectron2", "300 proposals, 20 classes, 100 kept", 1e-5)
def detections():
    given, roi_head = golden("detections"), detector("voc-full").roi_head
    network, original = (tuple(given[name].tolist()) for name in ("network", "original"))
    scale = (network[1] / original[1], network[0] / original[0])
    (found,) = roi_head.bbox_head.predict_by_feat(
        (boxes_of(given["proposals"]),),
        (given["logits"],),
        (given["deltas"],),
        [{"img_shape": network, "ori_shape": original, "scale_factor": scale}],
        rcnn_test_cfg=roi_head.test_cfg,
        rescale=True,
    )

    def rows(boxes, scores, labels):
        return torch.cat([boxes / max(original), scores[:, None], labels[:, None]], dim=1)

    wanted = rows(given["boxes"], given["scores"], given["labels"])
    return distance(rows(found.bboxes, found.scores, found.labels), wanted, scale=1)


@quantity("losses of the box head", "Detectron2", "300 proposals, 20 classes and background", 1e-5)
def box_losses():
    given, head = golden("box_losses"), detector("voc-full").roi_head.bbox_head
    positive = given["classes"] < head.num_classes
    targets = torch.zeros(len(positive), 4)
    targets[positive] = head.bbox_coder.encode(given["proposals"][positive], given["objects"][positive])
    weights = positive[:, None].float().expand(-1, 4)
    losses = head.loss(
        given["logits"],
        given["deltas"],
        boxes_of(given["proposals"]),
        given["classes"],
        torch.ones(len(positive)),
        targets,
        weights,
    )
    return max(
        relative(losses["loss_cls"], given["loss_cls"].float()),
        relative(losses["loss_bbox"], given["loss_box"].float()),
    )


def _rpn_training(kind: str, transfer_id: str, levels: int):
    """Losses as sums over anchors and their gradients, on a padded batch of crowded images; every anchor is sampled."""
    given, rpn = golden("rpn_training"), detector(transfer_id).rpn_head
    logits = [given[f"{kind}_logits{level}"].clone().requires_grad_() for level in range(levels)]
    deltas = [given[f"{kind}_deltas{level}"].clone().requires_grad_() for level in range(levels)]
    objects = [
        instances(bboxes=given[f"objects{image}"], labels=torch.zeros(len(given[f"objects{image}"]), dtype=torch.long))
        for image in range(2)
    ]
    sampled, rpn.sampler.num = rpn.sampler.num, 10**6
    try:
        losses = rpn.loss_by_feat(logits, deltas, objects, metas(given["sizes"].tolist()))
    finally:
        rpn.sampler.num = sampled
    normaliser = 2 * rpn.train_cfg["sampler"]["num"]
    cls, loc = (normaliser * sum(losses[name]) for name in ("loss_rpn_cls", "loss_rpn_bbox"))
    (cls + loc).backward()
    found = [
        relative(cls, given[f"{kind}_loss_rpn_cls"].float()),
        relative(loc, given[f"{kind}_loss_rpn_loc"].float()),
    ]
    found += [relative(logits[level].grad, given[f"{kind}_grad_logits{level}"]) for level in range(levels)]
    found += [relative(deltas[level].grad, given[f"{kind}_grad_deltas{level}"]) for level in range(levels)]
    return max(found)


@quantity("RPN losses and gradients, VOC", "Detectron2", "2 images, padded, 15 objects each", 1e-6)
def rpn_training_voc():
    return _rpn_training("voc", "voc-full", 1)


@quantity("RPN losses and gradients, COCO", "Detectron2", "the same on 5 levels", 1e-6)
def rpn_training_coco():
    return _rpn_training("coco", "coco-1x", 5)


def _rpn_targets(kind: str, transfer_id: str, levels: int):
    given, rpn = golden("rpn_training"), detector(transfer_id).rpn_head
    sizes = [tuple(given[f"{kind}_logits{level}"].shape[-2:]) for level in range(levels)]
    anchors, flags = rpn.get_anchors(sizes, metas(given["sizes"].tolist()), device="cpu")
    wrong = 0
    for image in range(2):
        objects = given[f"objects{image}"]
        part, wanted = torch.cat(flags[image]).bool(), given[f"{kind}_labels{image}"].long()
        labels = torch.full_like(wanted, -1)
        target = torch.zeros(len(wanted), dtype=torch.long)
        labels[part], target[part] = _assigned(rpn.assigner, torch.cat(anchors[image])[part], objects)
        positive = wanted == 1
        other = (objects[target[positive].clamp(min=0)] != given[f"{kind}_target_boxes{image}"][positive]).any(1)
        wrong += apart(labels, wanted) + int(other.sum())
    return wrong


@quantity("RPN targets of a padded batch", "Detectron2", "44,220 anchors of VOC and COCO", 0, unit="anchors")
def rpn_targets():
    return _rpn_targets("voc", "voc-full", 1) + _rpn_targets("coco", "coco-1x", 5)


@quantity("what is divided by in the RPN", "Detectron2", "256 an image, none of them positive", 0)
def rpn_normaliser():
    rpn = detector("coco-1x").rpn_head
    sizes = [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]
    images = metas([(32, 32), (32, 32)])
    anchors, flags = rpn.get_anchors(sizes, images, device="cpu")
    nothing = instances(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return abs(rpn.get_targets(anchors, flags, [nothing, nothing], images)[4] - 512)


@quantity("mask targets", "Detectron2", "59 objects, 28 x 28, none below 1 px (A9)", 0, unit="pixels")
def mask_targets():
    given, head = golden("mask_targets"), detector("coco-1x").roi_head.mask_head
    outlines = np.split(given["points"].numpy(), np.cumsum(given["lengths"].numpy())[:-1])
    ends = np.cumsum(given["parts"].numpy())
    polygons = [outlines[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    wanted = torch.from_numpy(np.unpackbits(given["targets"].numpy())).view(*given["shape"].tolist()).float()
    keep = torch.arange(len(wanted)) != 43  # narrower than a pixel (A9)
    sampling = instances(pos_priors=given["boxes"], pos_assigned_gt_inds=torch.arange(len(wanted)))
    objects = instances(masks=PolygonMasks(polygons, 1000, 1000))
    size = detector("coco-1x").roi_head.train_cfg.mask_size
    found = head.get_targets([sampling], [objects], ConfigDict(mask_size=size))
    return apart(found[keep], wanted[keep])


@quantity("pasted masks", "Detectron2", "30 masks in 320 x 480", 0, unit="pixels")
def mask_pasting():
    given, roi_head = golden("mask_pasting"), detector("coco-1x").roi_head
    height, width = given["image"].tolist()
    wanted = torch.from_numpy(np.unpackbits(given["pasted"].numpy())).view(-1, height, width).bool()
    found = roi_head.mask_head._predict_by_feat_single(
        given["logits"][:, None].expand(-1, 80, -1, -1),
        given["boxes"],
        torch.zeros(len(wanted), dtype=torch.long),
        {"ori_shape": (height, width), "scale_factor": (1.0, 1.0)},
        roi_head.test_cfg,
        rescale=True,
    )
    return int((found != wanted).sum())


@quantity("learning rate", "Detectron2", "1,580 iterations of VOC, COCO 1x, 2x", 1e-9)
def learning_rate():
    given, found = golden("recipe"), 0.0
    for transfer_id in ("voc-full", "coco-1x", "coco-2x"):
        cfg = protocol(transfer_id)
        iterations = given[f"{transfer_id}_iteration"].tolist()
        wanted = dict(zip(iterations, given[f"{transfer_id}_lr"].tolist(), strict=True))
        optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=cfg.optim_wrapper.optimizer.lr)
        schedulers = [PARAM_SCHEDULERS.build(s, default_args={"optimizer": optimiser}) for s in cfg.param_scheduler]
        for iteration in range(max(iterations) + 1):
            if iteration in wanted:
                found = max(found, abs(optimiser.param_groups[0]["lr"] / wanted[iteration] - 1))
            optimiser.step()
            for scheduler in schedulers:
                scheduler.step()
    return found


@quantity("resized shapes", "Detectron2", "1,500 images and scales", 0, unit="px")
def resized_shapes():
    given = golden("recipe")
    resize = next(step for step in protocol("voc-full").test_dataloader.dataset.pipeline if step.type == "Resize")
    longest = max(resize.scale)
    shapes = zip(given["shape_in"].tolist(), given["short"].tolist(), given["shape_out"].tolist(), strict=True)
    return max(
        abs(np.subtract(mmcv.rescale_size((width, height), (longest, short)), wanted[::-1])).max()
        for (height, width), short, wanted in shapes
    )


def _voc_evaluation(written=lambda detections: detections):
    given = {name: value.numpy() for name, value in golden("voc_evaluation").items()}
    images, classes = int(given["images"]), int(given["gt_labels"].max()) + 1
    truth = Truth(given["gt_image"], given["gt_labels"], given["gt_boxes"], given["gt_difficult"].astype(bool), None)
    found = Found(given["det_image"], given["det_labels"], given["det_boxes"], given["det_scores"])
    detections = Detections(Images(list(range(images)), None), tuple(map(str, range(classes))), truth, found)
    return torch.tensor(list(voc_average_precision(written(detections)).metrics.values()), dtype=torch.float64)


@quantity("VOC AP, AP50, AP75, unrounded", "Detectron2", "3,225 detections, 1,128 objects", 1e-9)
def voc_evaluation():
    return relative(_voc_evaluation(), golden("voc_evaluation")["d2_unrounded"])


@quantity("VOC AP, AP50, AP75, as printed", "Detectron2", "the same, ties in our order (A4)", 0.1, unit="AP")
def voc_evaluation_printed():
    return float((_voc_evaluation(as_printed) - golden("voc_evaluation")["d2_as_shipped"]).abs().max())


def _error_costs(kind: str, detections: Detections):
    costs = errors.analysis(detections)[kind]
    return torch.tensor([[costs[iou][name] for name in ERRORS] for iou in ("0.5", "0.75")], dtype=torch.float64)


@quantity("what errors cost, boxes of VOC", "TIDE", "3,225 detections, 173 difficult objects", 1e-9)
def error_costs_voc():
    given = {name: value.numpy() for name, value in golden("voc_evaluation").items()}
    found, objects = ([given[f"{side}_{name}"] for name in ("image", "labels", "boxes")] for side in ("det", "gt"))
    detections = Detections(
        Images(ids=(), sizes=np.zeros((int(given["images"]), 2), int)),
        classes=tuple(range(int(given["gt_labels"].max()) + 1)),
        truth=Truth(*objects, ignored=given["gt_difficult"].astype(bool), area=None, mask=None),
        found=Found(*found, score=given["det_scores"], mask=None),
    )
    return relative(_error_costs("box", detections), golden("error_costs")["voc"])


def with_errors(name: str) -> Detections:
    given = {column: value.numpy() for column, value in golden(name).items()}

    def columns(side, *names):
        return [given[f"{side}_{name}"] for name in names]

    def masks(side):
        return [runs.tobytes() for runs in np.split(given[f"{side}_runs"], np.cumsum(given[f"{side}_lengths"])[:-1])]

    return Detections(
        Images(ids=(), sizes=given["sizes"]),
        classes=tuple(range(int(given["classes"]))),
        truth=Truth(*columns("truth", "image", "label", "box", "ignored"), area=None, mask=masks("truth")),
        found=Found(*columns("found", "image", "label", "box", "score"), mask=masks("found")),
    )


@quantity("what errors cost, boxes", "TIDE", "764 detections, 47 crowds", 1e-9)
def error_costs_box():
    return relative(_error_costs("box", with_errors("error_costs")), golden("error_costs")["box"])


@quantity("what errors cost, masks", "TIDE", "the same", 1e-9)
def error_costs_mask():
    return relative(_error_costs("mask", with_errors("error_costs")), golden("error_costs")["mask"])


@quantity("what errors cost, two detectors", "TIDE", "boxes and masks of 15,979 detections", 1e-9)
def error_costs_of_detectors():
    names = "error_costs_random", "error_costs_resim_c4"
    return max(
        relative(_error_costs(kind, with_errors(name)), golden(name)[kind])
        for name in names
        for kind in ("box", "mask")
    )


@quantity("trainable tensors", "Detectron2", "VOC full, frozen, COCO 1x, the release's", 0, unit="tensors")
def trainable_tensors():
    return sum(
        abs(sum(value.requires_grad for value in detector(transfer_id).parameters()) - wanted)
        for transfer_id, wanted in TRAINABLE.items()
    )


@quantity("norms: momentum, epsilon, which train", "Detectron2", "VOC full, frozen, COCO 1x", 0)
def norms():
    wrong = 0
    for transfer_id, trained in (("voc-full", 54), ("coco-1x", 61), ("voc-frozen", 11)):
        layers = [m for m in detector(transfer_id).modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        wrong += abs(sum(layer.training for layer in layers) - trained)
        wrong += sum((layer.momentum, layer.eps) != (0.1, 1e-5) for layer in layers)
    return wrong


@quantity("optimiser: rate, momentum, decay", "Detectron2", "each tensor of VOC and COCO", 0)
def optimiser():
    from mmengine.optim import build_optim_wrapper

    wrong = 0
    for transfer_id in ("voc-full", "coco-1x"):
        model = detector(transfer_id)
        of_norms = {
            id(value)
            for layer in model.modules()
            if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)
            for value in layer.parameters()
        }
        with DefaultScope.overwrite_default_scope("mmdet"):
            groups = build_optim_wrapper(model, protocol(transfer_id).optim_wrapper).optimizer.param_groups
        for group in groups:
            for value in group["params"]:
                wanted = (0.02, 0.9, False, 0.0 if id(value) in of_norms else 1e-4)
                wrong += (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) != wanted
    return wrong
