"""Recurrent cores f_h: from the encoded glimpse g_t and h_{t-1} to h_t, all ``(B, H)``."""

import torch
from torch import Tensor, nn


class RNNCell(nn.Module):
    """The paper's core, ``h_t = ReLU(W h_{t-1} + g_t)``."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.recurrent = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, code: Tensor, h: Tensor) -> Tensor:
        return torch.relu(self.recurrent(h) + code)


CORES: dict[str, type[nn.Module]] = {"rnn": RNNCell}
"""Cores by name."""
