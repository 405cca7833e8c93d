"""What the benchmark compares does the same."""

import pytest
import torch

from pretrain.bench import step

TINY = {
    "batch": 8,
    "views.size": 64,
    "model.backbone.depth": 18,
    "model.bn_group": 4,
    "model.queue": 32,
    "optimizer.lr": 0.003,
}


@pytest.mark.parametrize("recipe", [step.MOCO, step.RESIM_C4, step.RESIM_FPN])
def test_the_plain_step_trains_as_ours_does(recipe):
    ours, plain = step.suite_step(recipe, TINY), step.plain_step(recipe, TINY)
    for _ in range(2):
        torch.manual_seed(3)
        expected = plain()
        torch.manual_seed(3)
        losses = {name.removeprefix("loss_"): v.item() for name, v in ours().items() if name.startswith("loss_")}
        assert losses == pytest.approx(expected, rel=1e-3)
