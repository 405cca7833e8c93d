"""Random draws that do not depend on history.

Every one is a function of the seed and of a position: of the draw's number for a sample, of the iteration for the
model. So nothing random needs to be saved, and an interrupted run that continues equals one that was never interrupted.
"""

import functools
import itertools
import random
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, HOOKS
from torch.utils.data import Sampler


@DATA_SAMPLERS.register_module()
class DrawSampler(Sampler):
    """An endless, reproducible stream of `(draw, index)`: the draw's number in the stream, and the sample.

    The stream is one permutation of the data set after another. Process r of w takes every w-th block of
    `batch_size` draws, so that one process with the whole batch sees the same images in the same order. A data
    set turns `draw` into the random numbers of the sample.

    Args:
        dataset: with `__len__`; `get_data_info(index)` giving `width` and `height` where aspects are grouped.
        seed: of the permutations.
        batch_size: samples a process takes at a time.
        drop_last: leave out the end of a permutation that fills no batch, as training by epochs does.
        group_by_aspect: emit blocks of `batch_size` samples that are all wide or all tall.
        square: which of them an image is that is neither; Detectron2 says tall.
        alone: draw as one process, however many there are.
    """

    def __init__(self, dataset, seed, batch_size, drop_last=False, group_by_aspect=False, square="wide", alone=False):
        self.rank, self.world_size = (0, 1) if alone else get_dist_info()
        self.dataset, self.seed, self.batch_size = dataset, seed, batch_size
        total = batch_size * self.world_size
        self.size = len(dataset) // total * total if drop_last else len(dataset)
        self.group_by_aspect, self.square = group_by_aspect, square
        self.start = 0

    def _stream(self, first: int) -> Iterator[tuple[int, int]]:
        """The draws of all processes from draw `first` on."""
        draws = itertools.count(first)
        started, begin = divmod(first, self.size)
        for epoch in itertools.count(started):
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.dataset))[: self.size]
            for index in order[begin:].tolist():
                yield next(draws), index
            begin = 0

    def _grouped(self, draws: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        @functools.cache  # a run that continues asks for every draw before, and an annotation takes 20 times as long
        def is_tall(index):
            info = self.dataset.get_data_info(index)
            width, height = info["width"], info["height"]
            return width < height or (width == height and self.square == "tall")

        waiting: dict[bool, list] = {False: [], True: []}
        for draw, index in draws:
            group = waiting[is_tall(index)]
            group.append((draw, index))
            if len(group) == self.batch_size:
                yield from group
                group.clear()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # Which images wait for others of their aspect depends on all draws before; else a position is enough.
        blocks, rest = (0, self.start) if self.group_by_aspect else divmod(self.start, self.batch_size)
        stream = self._stream(blocks * self.batch_size * self.world_size)
        own = (item for item in stream if item[0] // self.batch_size % self.world_size == self.rank)
        return itertools.islice(self._grouped(own) if self.group_by_aspect else own, rest, None)

    def skip(self, num_samples: int) -> None:
        """Start after `num_samples` draws of this process: what mmengine's loop calls when a run continues."""
        self.start = num_samples

    def __len__(self) -> int:
        return self.size


@HOOKS.register_module()
class ReseedHook(Hook):
    """Make the model's own draws (RoI sampling, shuffled keys) a function of (seed, iteration, process)."""

    priority = "VERY_HIGH"

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Seed the global generators."""
        rank, _ = get_dist_info()
        state = np.random.SeedSequence((runner.seed, runner.iter, rank)).generate_state(1)[0]
        torch.manual_seed(int(state))
        np.random.seed(state)
        random.seed(int(state))
