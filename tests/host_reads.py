"""What makes a host wait for its GPU, seen on a CPU."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

READS = {torch.ops.aten.nonzero, torch.ops.aten._local_scalar_dense, torch.ops.aten.masked_select}


class HostReads(TorchDispatchMode):
    """Inside, `found` names every operation whose value, or whose result's shape, the host needs from a tensor."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        by_mask = function.overloadpacket is torch.ops.aten.index and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        if function.overloadpacket in READS or by_mask:
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))
