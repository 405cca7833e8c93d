"""voc-goyal19 with a tenth of the learning rate and 1,000 iterations of warm-up: how PIRL and NPID++ were fine-tuned.

Paper: PIRL and NPID++ of the IN-1k VOC table, inferred; the protocol is vissl's (docs/sources.md), voc0712/pirl_npid.
Run: resim-bench transfer voc-pirl --backbone given-pirl --data data/VOCdevkit
Expect: 54.0 / 80.7 / 59.7 from PIRL, 52.3 / 79.1 / 56.9 from NPID++ (AP / AP50 / AP75).
It differs from voc-goyal19 by what stands below alone.
"""

_base_ = "./voc-goyal19.py"

optim_wrapper = dict(optimizer=dict(lr=0.002))
param_scheduler = [
    # end=1001 gives Detectron2's 1000 iterations of warm-up: mmengine divides by end - begin - 1
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1001),
    _base_.param_scheduler[1],
]
