"""What `pretrain.bench.peers` takes of lightly, in a few lines: for machines that do not have it."""

import torch
import torch.nn.functional as F
from torch import nn


class MoCoProjectionHead(nn.Sequential):
    def __init__(self, input_dim, hidden_dim, output_dim):
        super().__init__(nn.Linear(input_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, output_dim))


class NTXentLoss(nn.Module):
    """InfoNCE against a ring of the last keys."""

    def __init__(self, temperature, memory_bank_size):
        super().__init__()
        self.temperature, self.bank, self.next = temperature, F.normalize(torch.randn(memory_bank_size), dim=1), 0

    def forward(self, query, key):
        query, key = F.normalize(query, dim=1), F.normalize(key, dim=1)
        logits = torch.cat([(query * key).sum(dim=1, keepdim=True), query @ self.bank.T], dim=1) / self.temperature
        self.bank = self.bank.clone()
        for row in key:
            self.bank[self.next] = row
            self.next = (self.next + 1) % len(self.bank)
        return (logits.logsumexp(dim=1) - logits[:, 0]).mean()


def deactivate_requires_grad(model):
    for parameter in model.parameters():
        parameter.requires_grad = False


@torch.no_grad()
def update_momentum(model, model_ema, m):
    for follower, leader in zip(model_ema.parameters(), model.parameters(), strict=True):
        follower.copy_(m * follower + (1 - m) * leader)


def batch_shuffle(batch):
    order = torch.randperm(len(batch))
    return batch[order], order


def batch_unshuffle(batch, order):
    return batch[order.argsort()]
