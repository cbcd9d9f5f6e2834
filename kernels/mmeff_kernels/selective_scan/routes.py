"""The selective scan along several routes at once, summed: both directions, cross-scans, any order of the tokens."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..padding import nothing, without_padding
from .blocked import blocked_scan
from .checks import Impl, check, check_routes, choose_scan
from .reference import selective_scan_reference, step_sizes

#: "forward" and "backward", one for each route; or (K, L) integers: row k names the tokens in the order of route k.
Routes = Sequence[Literal["forward", "backward"]] | Tensor


def selective_scan_routes(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    routes: Routes,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_weight: Tensor | None = None,
    dt_softplus: bool = False,
    diagonal: Literal["all", "first"] = "all",
    lengths: Tensor | None = None,
    initial_state: Tensor | None = None,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """K selective scans over the same tokens, each along a route of its own: y = silu(z) * sum_k y_k.

    y_k is `selective_scan` of the tokens in the order of route k, brought back to their places. With
    `routes=("forward", "backward")` this is the bidirectional scan. Each of x, dt, A, B, C, D, dt_bias and dt_weight is
    either shared by all routes, shaped as for `selective_scan`, or leads with an axis K:

    x              (B, L, D) or (K, B, L, D), dt likewise; with dt_weight (D, R) or (K, D, R) dt is ([K,] B, L, R)
    A              (D, N) or (K, D, N), A <= 0
    B, C           (B, L, N), (B, L, G, N) or (K, B, L, G, N)
    D, dt_bias     (D,) or (K, D); a shared D is counted by each route
    routes         "forward" or "backward" for each route; or (K, L) integers, row k a permutation of 0 to L - 1: the
                   tokens in the order in which route k meets them
    z              (B, L, D) or None: the gate, of the sum
    diagonal       "all": a token sees itself along every route. "first": along the first one only, so that two tied
                   directions make one matrix with its diagonal counted once
    lengths        (B,) real tokens a row, for routes by name; a backward route starts at each row's own last token
    initial_state  (K, B, D, N)
    impl           as in `selective_scan`; "triton" never permutes, flips or repeats a tensor: routes are applied to the
                   addresses of loads and stores

    Returns y (B, L, D) in x's dtype and the states after the last step of each route, (K, B, D, N).

    ValueError if the shapes do not fit together, or a route is no permutation.
    """
    tensors = {
        "x": x, "dt": dt, "z": z, "A": A, "B": B, "C": C, "D": D,
        "dt_bias": dt_bias, "dt_weight": dt_weight, "initial_state": initial_state,
    }  # fmt: skip
    check_routes(routes, x, lengths)
    if diagonal not in ("all", "first"):
        raise ValueError(f"diagonal {diagonal!r}: choose 'all' or 'first'")
    count = len(routes)
    check(tensors, lengths, None, count)
    chosen = choose_scan(impl, tensors)
    if x.numel() == 0:
        state = initial_state
        if state is None:
            state = nothing((count, x.shape[-3], *A.shape[-2:]), torch.float32, x)
        return nothing(x.shape[-3:], x.dtype, *tensors.values()), state.clone()
    table = routes.to(x.device, torch.int32).contiguous() if isinstance(routes, Tensor) else None
    if chosen == "triton":
        from .operators import scan

        backward = 0 if table is not None else sum(1 << k for k, name in enumerate(routes) if name == "backward")
        return scan(tensors, dt_softplus, count, backward, table, diagonal == "first", lengths, None, want_state=True)
    each = [tensors | {name: _of_route(name, tensor, k) for name, tensor in tensors.items()} for k in range(count)]
    scan = blocked_scan if chosen == "torch" else _reference
    ys, states = [], []
    for k, own in enumerate(each):
        order = None if table is None else table[k].long()
        reverse = table is None and routes[k] == "backward"
        own["z"] = None
        y, state = _in_order(scan, own, order, dt_softplus, reverse, lengths)
        if diagonal == "first" and k > 0:
            y = y - _diagonal(own, dt_softplus, lengths)
        ys.append(y)
        states.append(state)
    total = torch.stack(ys).sum(0)
    if z is not None:
        total = total * F.silu(without_padding(z, lengths).to(total.dtype))
    return total.to(x.dtype), torch.stack(states)


def _of_route(name: str, tensor: Tensor | None, k: int) -> Tensor | None:
    """What route k takes of a tensor: its own part, or the tensor that all share."""
    shared = {"x": 3, "dt": 3, "z": 3, "A": 2, "B": 4, "C": 4, "D": 1, "dt_bias": 1, "dt_weight": 2, "initial_state": 3}
    return tensor if tensor is None or tensor.dim() <= shared[name] else tensor[k]


def _in_order(
    scan: Callable[..., tuple[Tensor, Tensor]], tensors: dict[str, Any], order: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor]:
    """Scan the tokens in this order, and bring y back to their places."""
    if order is None:
        return scan(tensors, *options)
    met = {name: tensors[name][:, order] for name in ("x", "dt", "B", "C")}
    y, state = scan({**tensors, **met}, *options)
    return y[:, order.argsort()], state


def _reference(
    tensors: dict[str, Any], dt_softplus: bool, reverse: bool, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    return selective_scan_reference(**tensors, dt_softplus=dt_softplus, reverse=reverse, lengths=lengths)


def _diagonal(tensors: dict[str, Any], dt_softplus: bool, lengths: Tensor | None) -> Tensor:
    """What each token adds to its own y, but for D x: dt x (C . B)."""
    x, dt, B, C, bias, weight = (tensors[name] for name in ("x", "dt", "B", "C", "dt_bias", "dt_weight"))
    dt = step_sizes(dt, None if weight is None else weight.to(dt.dtype), bias, dt_softplus)
    seen = (B * C).sum(-1)
    seen = seen[..., None] if B.dim() == 3 else seen.repeat_interleave(x.shape[-1] // B.shape[2], -1)
    return without_padding(dt * x * seen, lengths)
