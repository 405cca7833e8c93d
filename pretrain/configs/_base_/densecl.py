"""DenseCL: MoCo-v2 whose cells of C5 are contrasted, too, both losses weighed by 0.5.

Schedule, views and optimiser are MoCo-v2's, as in the authors' configuration (docs/sources.md); its heads are drawn as
torch draws them [ours].
"""

_base_ = "moco_v2.py"
model = dict(type="DenseCL", instance_weight=0.5, dense_weight=0.5)
