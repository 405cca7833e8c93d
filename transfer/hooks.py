"""What the protocols ask of the training loop: the pre-trained weights, precise batch norm, less memory."""

import copy
import itertools
from collections.abc import Callable
from contextlib import nullcontext

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from resim_bench import backbone
from resim_bench.errors import UserError
from resim_bench.harness import console
from resim_bench.harness.batchnorm import running_statistics_kept
from resim_bench.harness.launch import unwrapped
from transfer import weights


@HOOKS.register_module()
class BackboneHook(Hook):
    """Load a backbone file before training and say so; prove after it that what is frozen never changed.

    It loads at the start of the loop: later than the initialisation of weights, and not at all when the run
    continues from a checkpoint. `parameters` then says what was loaded, dropped and fresh.

    Args:
        path: of the file (`resim_bench.backbone`); by default the config's `backbone`, for plain MMDetection.
        neck: start the detector's feature pyramid from the pre-trained one; also where the config says `init_neck`.

    Raises:
        UserError: no path was given, the file is none, or it does not fit.
    """

    priority = "VERY_HIGH"

    def __init__(self, path=None, neck=False):
        self.path, self.neck = path, neck

    def before_train(self, runner):
        """Load, unless the run continues."""
        cfg = getattr(runner, "cfg", {})
        self.path, self.neck = self.path or cfg.get("backbone"), self.neck or cfg.get("init_neck", False)
        if not self.path:
            raise UserError("no backbone was given: set backbone to a file, or give it by --backbone")
        model = unwrapped(runner.model)
        state_dict, _ = backbone.load(self.path)
        self.parameters = weights.parameters(model, state_dict, self.neck)
        if runner.iter > 0:
            return
        weights.load(model, state_dict, self.neck)
        said = {what: f"{what} {', '.join(names)}" for what, names in self.parameters.items() if names}
        fresh = said.pop("fresh")
        for line in ("; ".join(said.values()), fresh):
            runner.logger.info(line)
            console.say(f"  {line}")

    def after_train(self, runner):
        """Compare the frozen tensors with the file, bit for bit."""
        model = unwrapped(runner.model)
        keys, own, places = weights.frozen_keys(model), model.state_dict(), weights.trunk_places(model)
        state_dict, _ = backbone.load(self.path)
        changed = [key for key in keys if not torch.equal(own[places[key]].cpu(), state_dict[key])]
        if changed:
            raise RuntimeError(f"training changed {len(changed)} frozen tensors, among them {changed[0]}")
        runner.logger.info(f"{len(keys)} frozen tensors of the trunk are what was loaded, bit for bit")


@torch.no_grad()
def population_statistics(layers: list[nn.Module], forward, batches) -> None:
    """Replace running statistics of `layers` by the mean and variance of their inputs over all `batches`.

    What fvcore's `update_bn_stats` computes: the mean over batches, weighted by the number of values a channel has
    in each, of E[x] and of E[x²]; the variance is the second less the square of the first. Sums run over all
    processes, so that all end with the same statistics (fvcore's differ, detectron2#5398).

    Args:
        layers: batch-norm modules in training mode.
        forward: runs the model on one batch.
        batches: iterable.
    """
    sums = {layer: layer.running_mean.new_zeros(3, layer.num_features, dtype=torch.float64) for layer in layers}

    def add(layer, inputs):
        values = inputs[0].detach().float()
        variance, mean = torch.var_mean(values, [d for d in range(values.dim()) if d != 1], correction=0)
        mean, variance = mean.double(), variance.double()
        count = values.numel() // layer.num_features
        sums[layer] += count * torch.stack([torch.ones_like(mean), mean, variance + mean.square()])

    handles = [layer.register_forward_pre_hook(add) for layer in layers]
    try:
        for batch in batches:
            forward(batch)
    finally:
        for handle in handles:
            handle.remove()
    for layer, total in sums.items():
        all_reduce(total)
        mean, square = total[1] / total[0], total[2] / total[0]
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(square - mean.square())


@HOOKS.register_module()
class PreciseBNHook(Hook):
    """After the last iteration, before its checkpoint: the running statistics of the trained norms, precisely.

    Detectron2's `PreciseBN` (docs/sources.md): the model in training mode computes its losses, RoIs sampled as
    in training, on `num_iters` batches of a training loader of its own, without gradients. Norms in evaluation mode
    keep what they have. The loader continues the stream of samples where training ended.
    """

    priority = "ABOVE_NORMAL"

    def __init__(self, num_iters=200):
        self.num_iters = num_iters

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Run once, at the end."""
        if runner.iter + 1 != runner.max_iters or self.num_iters == 0:
            return
        model = unwrapped(runner.model)
        layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
        runner.logger.info(f"precise batch norm: {len(layers)} norms, {self.num_iters} batches")

        def forward(batch):
            model(**model.data_preprocessor(batch, True), mode="loss")

        population_statistics(layers, forward, itertools.islice(_continued(runner), self.num_iters))


def _continued(runner) -> DataLoader:
    """A second loader of the training data, whose samples follow those that training has used."""
    loader = runner.train_dataloader
    sampler = copy.copy(loader.sampler)
    sampler.skip(runner.max_iters * loader.batch_size)
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
    )


RECOMPUTED = {"nothing": (), "res5": ("roi_head.shared_head",), "blocks": ("backbone", "roi_head.shared_head")}
"""The parts of a detector whose residual blocks are computed twice, by what `recompute` says."""


@HOOKS.register_module()
class RecomputeHook(Hook):
    """Residual blocks keep their input alone, and compute the rest again for the gradient: the same numbers, slower.

    Block by block: a part that is computed again as a whole takes as much at that moment as if it had been kept.

    Args:
        what: a key of `RECOMPUTED`.
    """

    def __init__(self, what):
        self.what = what

    def before_train(self, runner):
        """From here on."""
        from mmdet.models.backbones.resnet import BasicBlock, Bottleneck

        parts = [part for name, part in unwrapped(runner.model).named_modules() if name in RECOMPUTED[self.what]]
        self.blocks = [m for part in parts for m in part.modules() if isinstance(m, BasicBlock | Bottleneck)]
        for block in self.blocks:
            block.forward = recomputed(block)

    def after_train(self, runner):
        """As it was."""
        for block in self.blocks:
            del block.forward


def recomputed(module: nn.Module) -> Callable:
    """The forward pass of `module` that keeps its inputs alone for the gradient; running statistics move once."""
    forward = module.forward

    def in_less_memory(*inputs):
        if not (module.training and torch.is_grad_enabled()):
            return forward(*inputs)
        before = itertools.count()

        def computed(*inputs):
            with running_statistics_kept(module) if next(before) else nullcontext():
                return forward(*inputs)

        return checkpoint(computed, *inputs, use_reentrant=False, preserve_rng_state=False)  # nothing is random

    return in_less_memory
