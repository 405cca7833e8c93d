"""What both trainings set for their process."""

import subprocess
import sys

FAULTS = """
import resource
import sys

import torch

from resim_bench import training
if sys.argv[1] == "kept":
    training.keep_freed_memory()
for _ in range(10):  # the heap grows until an aligned block fits into a freed one
    torch.ones(20_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(20_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_kept_for_the_next_step():
    """Five tensors of 80 MB, one after another: new pages for each, where the system has to give them again."""

    def faults(memory):
        done = subprocess.run([sys.executable, "-c", FAULTS, memory], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("kept") < faults("returned") / 10
