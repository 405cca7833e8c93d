"""voc-full with five times the learning rate and its own warm-up: how SwAV's LARS-trained weights were fine-tuned.

Paper: SwAV of the IN-1k VOC table, inferred; the protocol is vissl's (docs/sources.md), voc0712/simclr_swav.
Run: resim-bench transfer voc-swav --backbone given-swav --data data/VOCdevkit
Expect: 56.1 / 82.6 / 62.7 from SwAV's 800 epochs (AP / AP50 / AP75); 45.1 under voc-full.
It differs from voc-full by what stands below alone.
"""

_base_ = "./voc-full.py"

optim_wrapper = dict(optimizer=dict(lr=0.1))
param_scheduler = [
    # end=1001 gives Detectron2's 1000 iterations of warm-up: mmengine divides by end - begin - 1
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=1001),
    _base_.param_scheduler[1],
]
