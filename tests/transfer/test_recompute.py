"""Blocks that are computed twice: the same numbers in less memory, and nothing of it in a record."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, DefaultScope

from resim_bench import record
from resim_bench.errors import UserError
from resim_bench.machine.timing import extra_memory
from tests.transfer.conftest import TINY, TINY_COCO
from tests.transfer.helpers import detector, resolved
from transfer import hooks, protocols, train
from transfer.heads import ResLayerExtraNorm


def with_head(head):
    """What of a detector the hook looks at."""
    return torch.nn.ModuleDict({"roi_head": torch.nn.ModuleDict({"shared_head": head})})


def hooked(model, what):
    hook = hooks.RecomputeHook(what)
    hook.before_train(SimpleNamespace(model=model))
    return hook


def trained(transfer_id, tiny, folder, what):
    """Losses of two steps, the last gradients, the state at the end, and how often a block was computed."""
    options = tiny | {"model.backbone.frozen_stages": -1}
    torch.manual_seed(0)
    model = detector(transfer_id, options).train()
    hooked(model, what)
    cfg = resolved(transfer_id, options, data=folder)
    cfg.train_dataloader.dataset.classes = None
    with DefaultScope.overwrite_default_scope("mmdet"):
        images = DATASETS.build(cfg.train_dataloader.dataset)
    calls = []
    for block in model.backbone.layer1:
        block.conv1.register_forward_pre_hook(lambda part, inputs: calls.append(1))
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.01), []
    for step in range(2):
        torch.manual_seed(step)
        optimizer.zero_grad()
        batch = model.data_preprocessor(pseudo_collate([images[0, 2 * step], images[1, 2 * step + 1]]), True)
        loss, _ = model.parse_losses(model(**batch, mode="loss"))
        loss.backward()
        losses.append(loss.detach())
        optimizer.step()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return {"losses": losses, "gradients": gradients, "state": model.state_dict()}, len(calls)


def assert_same(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0)


VOC, COCO = ("mini-voc-full", TINY, "devkit"), ("coco-1x", TINY_COCO, "coco_folder")


@pytest.mark.parametrize(("protocol", "what"), [(VOC, "res5"), (VOC, "blocks"), (COCO, "blocks")])
def test_losses_gradients_and_running_statistics_are_the_same_bit_for_bit(protocol, what, request):
    transfer_id, tiny, folder = protocol
    folder = request.getfixturevalue(folder)
    (plain, once), (again, calls) = (trained(transfer_id, tiny, folder, w) for w in ("nothing", what))
    assert_same(again, plain)
    counts = {int(value) for name, value in again["state"].items() if name.endswith("num_batches_tracked")}
    assert counts == {2}, "one for each step"
    assert calls == once * (2 if what == "blocks" else 1)


def test_bfloat16_is_computed_again_in_bfloat16():
    head = revert_sync_batchnorm(ResLayerExtraNorm(18, base_channels=16))
    results = [of_head(head, what, bfloat16=True) for what in ("nothing", "res5")]
    assert_same(*results)


def of_head(head, what, bfloat16=False):
    """Gradients and state of a step of a shared head; the head stays as it is."""
    before = {key: value.clone() for key, value in head.state_dict().items()}
    hook = hooked(with_head(head), what)
    torch.manual_seed(0)
    features = torch.randn(6, 64, 6, 6, requires_grad=True)
    head.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        out = head(features)
    out.float().square().mul(torch.arange(6)[:, None, None, None]).sum().backward()
    result = {key: value.clone() for key, value in head.state_dict().items()}
    result |= {f"{name}.grad": p.grad.clone() for name, p in head.named_parameters() if p.grad is not None}
    hook.after_train(None)
    head.load_state_dict(before)
    return result | {"in": features.grad}


@pytest.mark.parametrize("frozen", [False, True])
def test_syncbn_moves_its_statistics_once(frozen):
    """torch's own, which counts its batches whatever it is told."""
    head = ResLayerExtraNorm(18, base_channels=16, frozen=frozen)
    assert isinstance(head.norm, torch.nn.SyncBatchNorm)
    plain, again = (of_head(head, what) for what in ("nothing", "res5"))
    assert_same(again, plain)
    assert again["norm.num_batches_tracked"] == 1 and not again["norm.running_mean"].equal(torch.zeros(128))


def test_a_step_takes_less_memory():
    def forward_and_step(what):
        head = revert_sync_batchnorm(ResLayerExtraNorm(50, base_channels=16))
        hooked(with_head(head), what)
        features = torch.randn(32, 256, 14, 14, requires_grad=True)
        return extra_memory(lambda: head(features)), extra_memory(lambda: head(features).sum().backward())

    (forward, step), (all_of_forward, whole_step) = map(forward_and_step, ("res5", "nothing"))
    assert forward < 0.5 * all_of_forward
    assert step < 0.92 * whole_step, "on a CPU the gradients of the largest convolutions take a part of it"


def test_after_training_it_is_as_before():
    head = revert_sync_batchnorm(ResLayerExtraNorm(18, base_channels=16))
    before = [block.forward for block in head.layer4]
    hook = hooked(with_head(head), "res5")
    assert all("forward" in vars(block) for block in head.layer4)
    hook.after_train(None)
    assert [block.forward for block in head.layer4] == before


@pytest.mark.parametrize("what", ["res5", "blocks"])
def test_no_summary_knows(what):
    cfg, shipped = resolved(options={"recompute": what}), resolved()
    assert protocols.summary(cfg) == protocols.summary(shipped)
    assert protocols.for_runner(cfg).custom_hooks[-1] == {"type": "RecomputeHook", "what": what}
    assert protocols.for_runner(shipped).custom_hooks == shipped.custom_hooks


def test_a_run_ends_in_the_same_weights_and_the_same_claim(devkit, backbone_path, tmp_path):
    def run(what):
        options = TINY | {"max_iters": 2, "recompute": what}
        place = dict(data=devkit, work_dir=tmp_path / what)
        path = train.run("mini-voc-full", backbone_path, **place, cfg_options=options)
        (state,) = place["work_dir"].rglob("last.pth")
        return torch.load(state, weights_only=True)["state_dict"], record.read(path), record.claim_of(path)

    (plain, of_plain, claim), (again, entry, same_claim) = run("nothing"), run("blocks")
    assert_same(again, plain)
    assert same_claim == claim and entry["metrics"] == of_plain["metrics"]
    assert entry["transfer"]["deviations"] == of_plain["transfer"]["deviations"]


@pytest.mark.parametrize(
    ("transfer_id", "what", "message"),
    [
        ("coco-1x", "res5", "recompute is res5, and the model has no res5 of regions: give blocks or nothing"),
        ("voc-full", "all", "recompute is 'all': give nothing, res5 or blocks"),
    ],
)
def test_what_it_cannot_be(transfer_id, what, message):
    with pytest.raises(UserError, match=message):
        protocols.load(transfer_id, {"recompute": what})
