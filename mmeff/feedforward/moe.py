"""A mixture of experts: each token is served by a few of many MLPs."""

import torch
from torch import Tensor, nn

from mmeff.errors import whole, within
from mmeff.feedforward.base import ChannelMixer
from mmeff.feedforward.mlp import MLP
from mmeff.tokens import valid_mask


class MoE(ChannelMixer):
    """p = softmax(W_r x),  y = sum over the top_k experts e of p of p_e / (sum of the chosen p) MLP_e(x).

    Token choice without a capacity: no token is dropped. In training `aux_loss` is the balancing loss
    balance * E * sum_e f_e P_e, where f_e is the share of the choices that went to expert e and P_e the mean of p_e,
    over real tokens; it is `balance` when both are uniform. Padding is sent to no expert and comes out as zero.
    With top_k = 1 the gate is p_e itself, since a renormalised one would be 1 and would not train the router.

    Source: Fedus et al., Switch, arXiv 2101.03961, eq. 4 to 6; top-2 with renormalised gates as in GShard, 2006.16668.
    """

    def __init__(self, dim: int, experts: int = 4, top_k: int = 2, ratio: float = 4.0, balance: float = 0.01) -> None:
        """
        Args:
            dim: width of the tokens.
            experts: number of MLPs.
            top_k: experts that serve a token.
            ratio: hidden width of an expert as a multiple of dim, rounded up to a multiple of 8.
            balance: weight of the balancing loss.
        """
        super().__init__()
        whole(1, dim=dim, experts=experts, top_k=top_k)
        within("[0, inf)", balance=balance)
        if top_k > experts:
            raise ValueError(f"top_k {top_k} must lie between 1 and the number of experts {experts}")
        self.top_k = top_k
        self.balance = balance
        self.router = nn.Linear(dim, experts, bias=False)
        self.experts = nn.ModuleList(MLP(dim, ratio) for _ in range(experts))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        tokens = x.flatten(0, 1)
        real = None if lengths is None else valid_mask(lengths, x.shape[1]).flatten().nonzero().squeeze(1)
        served = tokens if real is None else tokens.index_select(0, real)
        gates, chosen = self._route(served)
        y = torch.zeros_like(served)
        for e, expert in enumerate(self.experts):
            token, place = (chosen == e).nonzero(as_tuple=True)
            # An expert that nobody chose still runs, on nothing, so that its parameters have gradients (of zero).
            output = expert(served.index_select(0, token)) * gates[token, place, None].to(x.dtype)
            y = y.index_add(0, token, output.to(x.dtype))
        y = y if real is None else torch.zeros_like(tokens).index_copy(0, real, y)
        return y.view_as(x)

    def _route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(M, D) -> gates (M, top_k) and experts (M, top_k); leaves the balancing loss. In fp32: bf16 makes ties."""
        with torch.autocast(tokens.device.type, enabled=False):
            wide = torch.promote_types(tokens.dtype, torch.float32)
            p = nn.functional.linear(tokens.to(wide), self.router.weight.to(wide)).softmax(-1)
            gates, chosen = p.topk(self.top_k, dim=-1)
            if self.top_k > 1:
                gates = gates / gates.sum(-1, keepdim=True)
            self.aux_loss = self._balancing_loss(p, chosen) if self.training else None
        return gates, chosen

    def _balancing_loss(self, p: Tensor, chosen: Tensor) -> Tensor:
        E = len(self.experts)
        share = torch.bincount(chosen.flatten(), minlength=E).to(p.dtype) / max(1, chosen.numel())
        return self.balance * E * (share * p.sum(0) / max(1, len(p))).sum()
