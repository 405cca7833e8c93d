"""A backbone becomes average precision: the paper's detection protocols on MMDetection.

Importing this package is all that plain MMDetection needs (`custom_imports = dict(imports=["transfer"])`): it puts
torchvision's kernels where mmcv has no compiled operators and registers heads, data sets, hooks and metrics. It does
so without importing mmdet, which takes seconds: the metric and the configs stay quick to reach.
"""

import mmengine.logging

from transfer import mmcv_ops

# mmdet speaks at every import of an optional package that nothing here uses: this sentence goes, all others stay.
_ONEDL = "Could not import OneDL. Skipping OneDL datasets."
_print_log = mmengine.logging.print_log


def _print_log_without_onedl(msg, *args, **kwargs):
    if msg != _ONEDL:
        _print_log(msg, *args, **kwargs)


mmengine.logging.print_log = _print_log_without_onedl
mmcv_ops.install()

from resim_bench.harness import draws, precision  # noqa: E402, F401  (the configs name a sampler and a hook of theirs)
from transfer import coco, heads, hooks, metrics, voc  # noqa: E402, F401
