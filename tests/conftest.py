"""What every test runs under."""

import torch

# Two cores, small tensors: threads that wait for each other cost more than they give.
torch.set_num_threads(1)
