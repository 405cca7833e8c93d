"""Float32 is strict unless TF32 is asked for, and only during a run."""

import pytest
import torch

from pretrain import train
from resim_bench.harness import runs
from resim_bench.harness.precision import Float32Hook


def allowed():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_switched_during_the_run_only(tf32):
    before = allowed()
    hook = Float32Hook(tf32)
    hook.before_run(None)
    assert allowed() == (tf32, tf32)
    hook.after_run(None)
    assert allowed() == before


@pytest.mark.parametrize(("precision", "tf32"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_a_recipe_says_which(precision, tf32):
    recipe = train.load_recipe("in100-moco-v2", {"precision": precision})
    hook, *_ = train.runner_config(recipe, {}, images=1000, world_size=1).custom_hooks
    assert hook == {"type": "Float32Hook", "tf32": tf32}
    shipped = train.load_recipe("in100-moco-v2")
    found = runs.differences(train.protocol(shipped, shipped.dataset), train.protocol(recipe, recipe.dataset))
    assert found == ({} if precision == "float32" else {"precision": ["float32", precision]}), "what deviates is named"
