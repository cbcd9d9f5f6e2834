"""GLA, HGRN2, RWKV6, VisionRWKV and MLSTM, whose tokens decide what is forgotten or how much is written: each against
its definition written as loops over tokens, in float64."""

import importlib
from typing import Any, TypeVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.init import init_weights
from mmeff.mixers import GLA, HGRN2, MLSTM, RWKV6, Mixer, VisionRWKV
from mmeff.mixers.mlstm import mlstm, stabilised
from mmeff.mixers.shift import q_shift
from mmeff.mixers.vision_rwkv import bi_wkv
from mmeff.norm import HeadNorm
from mmeff_kernels.decay import decay_attention

DIM, L = 8, 12
GRIDS = [(12,), (3, 4)]
M = TypeVar("M", bound=Mixer)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def stirred(mixer: M) -> M:
    """The mixer in float64, with initial values moved so far that all of them show."""
    for parameter in mixer.double().parameters():
        nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.5)
    return mixer


def by_heads(x: Tensor, heads: int) -> Tensor:
    """(L, H K) -> (H, L, K)."""
    return x.unflatten(1, (heads, -1)).transpose(0, 1)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def group_norm(x: Tensor, norm: HeadNorm) -> Tensor:
    """x (L, H K), each head of each token by itself."""
    heads = x.unflatten(1, (norm.heads, -1))
    centred = heads - heads.mean(-1, keepdim=True)
    return (centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()).flatten(1) * norm.weight + norm.bias


def between(decay: Tensor, first: int, last: int) -> Tensor:
    """The product of decay (L, K) over the tokens from first to last, both included; 1 if there are none."""
    return decay[first : last + 1].prod(0)


def shifted_by_hand(x: Tensor, grid: tuple[int, ...]) -> Tensor:
    """(L, C): quarters from the left, right, above and below; halves from before and after where the grid is 1-D."""
    rows, columns = grid if len(grid) == 2 else (1, *grid)
    sides = [(0, -1), (0, 1), (-1, 0), (1, 0)][: 2 * len(grid)]
    size = x.shape[1] // len(sides)
    y = x.clone()
    for i in range(rows):
        for j in range(columns):
            for n, (di, dj) in enumerate(sides):
                inside = 0 <= i + di < rows and 0 <= j + dj < columns
                part = slice(n * size, (n + 1) * size)
                y[i * columns + j, part] = x[(i + di) * columns + j + dj, part] if inside else 0
    return y


@pytest.mark.parametrize("grid", [(1,), (7,), (1, 1), (1, 5), (5, 1), (3, 4)])
@pytest.mark.parametrize("channels", [8, 11, 3, 1])
def test_q_shift_takes_each_part_from_its_neighbour(grid: tuple[int, ...], channels: int) -> None:
    x = normal(torch.Size(grid).numel(), channels)
    y = q_shift(x[None, :, None].expand(2, -1, 3, -1), grid)
    assert torch.equal(y, shifted_by_hand(x, grid)[None, :, None].expand_as(y))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("causal", "local"), [(True, False), (False, False), (False, True)])
def test_gla_is_its_recurrence(grid: tuple[int, ...], causal: bool, local: bool) -> None:
    H, K, V, rank = 2, 2, 4, 3
    mixer = stirred(GLA(DIM, head_dim=V, rank=rank, causal=causal, local=local))
    assert mixer.causal is causal and (mixer.conv is not None) is (mixer.local_norm is not None) is local
    x = normal(1, L, DIM)
    u = x[0] if mixer.conv is None else F.silu(mixer.conv(x, grid))[0]
    *qkvz, low_rank = mixer.in_proj(u).split((H * K, H * K, DIM, DIM, rank), dim=-1)
    q, k, v, z = (by_heads(t, H) for t in qkvz)
    alphas = torch.sigmoid(mixer.decay(low_rank)).pow(1 / 16).chunk(1 if causal else 2, dim=-1)
    o = torch.zeros(H, L, V, dtype=torch.float64)
    for alpha, order in zip(alphas, (range(L), reversed(range(L))), strict=False):
        S, alpha = torch.zeros(H, K, V, dtype=torch.float64), by_heads(alpha, H)
        for t in order:
            S = alpha[:, t, :, None] * S + k[:, t, :, None] * v[:, t, None]
            o[:, t] += (q[:, t, :, None] * S).sum(1) / K**0.5 / len(alphas)
    o = rms_norm(o, mixer.norm.weight)
    if mixer.local_norm is not None:
        z = torch.sigmoid(z)
        y = F.silu(z * o + (1 - z) * rms_norm(by_heads(u, H), mixer.local_norm.weight))
    else:
        y = F.silu(z) * o
    close(mixer(x, grid)[0], mixer.out(y.transpose(0, 1).flatten(1)))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lower_bound", [0.0, 0.6])
def test_hgrn2_is_a_sum_over_tokens_with_the_gates_between_them(lower_bound: float, causal: bool) -> None:
    H, K = 2, 4
    mixer = HGRN2(DIM, head_dim=K, lower_bound=lower_bound, causal=causal).double()
    assert mixer.causal is causal
    x = normal(1, L, DIM)
    q, forget, v = (by_heads(t, H) for t in mixer.in_proj(x[0]).chunk(3, dim=-1))
    f = lower_bound + (1 - lower_bound) * torch.sigmoid(forget)
    o = torch.zeros(H, L, K, dtype=torch.float64)
    for h in range(H):
        for t in range(L):
            for s in range(t + 1 if causal else L):
                weight = between(f[h], s + 1, t) if s <= t else between(f[h], t, s - 1)
                o[h, t] += (F.silu(q[h, t]) * weight * (1 - f[h, s])).sum() * v[h, s] / K**0.5
    y = rms_norm(o.transpose(0, 1).flatten(1), mixer.norm.weight)
    close(mixer(x, (3, 4))[0], mixer.out(y))
    close(mixer(x, (3, 4)), mixer(x, (12,)))


@pytest.mark.parametrize("lower_bound", [0.0, 0.3])
def test_hgrn2s_gates_stay_finite_where_they_are_almost_0_or_1(lower_bound: float) -> None:
    forget = torch.tensor([-200.0, -20.0, 0.0, 20.0, 200.0], requires_grad=True)
    k, log_f = HGRN2(DIM, lower_bound=lower_bound).gate(forget)
    assert (log_f <= 0).all() and log_f.isfinite().all()
    torch.testing.assert_close(1 - k, log_f.exp())
    (k.sum() + log_f.sum()).backward()
    assert forget.grad is not None and forget.grad.isfinite().all()


@pytest.mark.parametrize("grid", GRIDS)
def test_rwkv6_reads_before_it_decays_from_both_sides(grid: tuple[int, ...]) -> None:
    H, K, R = 2, 4, 3
    mixer = stirred(RWKV6(DIM, head_dim=K, mix_rank=R, decay_rank=2))
    x = normal(L, DIM)
    change = torch.cat([shifted_by_hand(x[:, :K], grid), shifted_by_hand(x[:, K:], grid)], -1) - x
    low_rank = torch.tanh((x + change * mixer.mix) @ mixer.mix_down)
    x_d, x_r, x_k, x_v, x_g = (
        x + change * (mixer.mixes[i] + low_rank[:, i * R : (i + 1) * R] @ mixer.mix_up[i]) for i in range(5)
    )
    d = mixer.decay + torch.tanh(x_d @ mixer.decay_down) @ mixer.decay_up
    r, k, v, w = (by_heads(t, H) for t in (mixer.r(x_r), mixer.k(x_k), mixer.v(x_v), torch.exp(-torch.exp(d))))
    o = torch.zeros(H, L, K, dtype=torch.float64)
    for h in range(H):
        for t in range(L):
            for s in range(L):
                far = between(w[h], min(s, t) + 1, max(s, t) - 1)
                weight = mixer.bonus[h] if s == t else far
                o[h, t] += (r[h, t] * weight * k[h, s]).sum() * v[h, s]
    y = F.silu(mixer.gate(x_g)) * group_norm(o.transpose(0, 1).flatten(1), mixer.norm)
    close(mixer(x[None], grid)[0], mixer.out(y))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
def test_vision_rwkv_is_its_weighted_mean_over_all_tokens(grid: tuple[int, ...], norm: bool) -> None:
    mixer = VisionRWKV(DIM, norm=norm).double()
    x = normal(L, DIM)
    shifted = shifted_by_hand(x, grid)
    r, k, v = (
        project(mu * x + (1 - mu) * shifted) for project, mu in zip((mixer.r, mixer.k, mixer.v), mixer.mix, strict=True)
    )
    y = torch.zeros_like(x)
    for t in range(L):
        weights = [
            torch.exp(k[i] + mixer.u / L) if i == t else torch.exp(k[i] - (abs(t - i) - 1) * mixer.w / L)
            for i in range(L)
        ]
        y[t] = sum(weight * v[i] for i, weight in enumerate(weights)) / sum(weights)
    assert mixer.w.min() < 0 < mixer.w.max()
    close(mixer(x[None], grid)[0], mixer.out(torch.sigmoid(r) * mixer.norm(y)))


def test_bi_wkv_counts_the_tokens_of_each_row_and_never_overflows() -> None:
    w, u = torch.tensor([-30.0, -1.0, 0.0, 30.0]), torch.tensor([3.0, 0.0, -3.0, 28.0])
    k, v = torch.randn(4, 9, 4), torch.randn(4, 9, 4)
    lengths = torch.tensor([9, 4, 1, 0])
    y = bi_wkv(k, v, w, u, lengths)
    for row, n in enumerate(lengths[:3].tolist()):
        torch.testing.assert_close(y[row : row + 1, :n], bi_wkv(k[row : row + 1, :n], v[row : row + 1, :n], w, u))
        assert y[row, n:].count_nonzero() == 0
    assert y.isfinite().all()
    torch.testing.assert_close(y[2, 0], v[2, 0])  # alone, a token is its own mean
    torch.testing.assert_close(bi_wkv(k + 1024, v, w, u, lengths), y, rtol=1e-3, atol=1e-3)  # k + 1024 has 13 bits left
    torch.testing.assert_close(bi_wkv(k - 1024, v, w, u, lengths), y, rtol=1e-3, atol=1e-3)


def mlstm_by_hand(row: list[Tensor], reverse: bool, least: float) -> Tensor:
    """Of a row's q, k, v (L, H, K), i and log f (L, H), without a stabiliser: n^T q is at least `least`."""
    q, k, v, i, log_f = row
    length, H, K = q.shape
    C, n = torch.zeros(H, K, K, dtype=torch.float64), torch.zeros(H, K, dtype=torch.float64)
    h: list[Tensor] = [q.new_empty(0)] * length
    for t in reversed(range(length)) if reverse else range(length):
        written, kept = i[t].exp()[:, None] * k[t] / K**0.5, log_f[t].exp()[:, None]
        C, n = kept[..., None] * C + written[..., None] * v[t, :, None], kept * n + written
        below = (n * q[t]).sum(-1).abs().clamp_min(least)
        h[t] = (C * q[t, :, :, None]).sum(1) / below[:, None]
    return torch.stack(h)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [5, 9, 1, 0]])
def test_stabilised_mlstm_has_the_values_and_gradients_of_the_plain_one(
    lengths: list[int] | None, reverse: bool
) -> None:
    rows, length, H, K = 4, 9, 2, 3
    q, k, v = (normal(rows, length, H, K) for _ in range(3))
    i, log_f = 2 * normal(rows, length, H), F.logsigmoid(2 * normal(rows, length, H))
    leaves = [t.requires_grad_() for t in (q, k, v, i, log_f)]
    h = mlstm(q, k, v, i, log_f, reverse, None if lengths is None else torch.tensor(lengths))
    weight = normal(*h.shape)
    actual = torch.autograd.grad((weight * h).sum(), leaves)
    expected = torch.zeros_like(h)
    for row, n in enumerate([length] * rows if lengths is None else lengths):
        if n:
            expected[row, :n] = mlstm_by_hand([t[row, :n] for t in leaves], reverse, 1.0)
    close(h, expected)
    for a, b in zip(actual, torch.autograd.grad((weight * expected).sum(), leaves), strict=True):
        close(a, b)


def test_mlstms_gradient_is_that_of_its_value() -> None:
    leaves = [normal(1, 4, 1, 2) for _ in range(3)] + [normal(1, 4, 1), F.logsigmoid(normal(1, 4, 1))]
    assert torch.autograd.gradcheck(mlstm, [t.requires_grad_() for t in leaves])


@pytest.mark.parametrize("reverse", [False, True])
def test_exponential_gates_never_overflow(reverse: bool) -> None:
    q, k, v = (normal(1, L, 1, 4) for _ in range(3))
    i, log_f = 3 * normal(1, L, 1), F.logsigmoid(3 * normal(1, L, 1))
    expected = mlstm_by_hand([t[0] for t in (q, k, v, i, log_f)], reverse, 0.0)
    h = mlstm(q.float(), k.float(), v.float(), i.float() + 300, log_f.float(), reverse)
    torch.testing.assert_close(h[0].double(), expected, rtol=1e-3, atol=1e-3)
    assert mlstm(q, k, v, i - 2000, log_f, reverse).isfinite().all()
    assert mlstm(0 * q.float(), k.float(), v.float(), i.float() + 300, log_f.float(), reverse).count_nonzero() == 0


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("gates", [1.0, 10.0])
def test_in_half_precision_mlstm_is_as_exact_as_its_inputs(gates: float, device: str) -> None:
    """Where n^T q crosses 0, h has a pole, and where one token outweighs the others, gradients are differences of equal
    terms, of C and of n: no precision helps there. So errors are taken relative to these terms, and compared with what
    one rounding of q, k and v does to the exact ones. In bf16 half of all numbers, and nine of ten, are off by at most
    four of it, for what the kernels round: k or v times i, the weights between tokens, results, and their gradients. In
    fp32, 65,536 times as fine, by a thousandth."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    B, L, H, K, V = 4, 256, 4, 16, 32
    qkv = [draw(B, L, H, width).bfloat16() for width in (K, K, V)]
    leaves = [*qkv, gates * draw(B, L, H), F.logsigmoid(draw(B, L, H) + 3)]
    weight = draw(B, L, H, V).bfloat16()

    def run(kind: torch.dtype, leaves: list[Tensor], device: str = "cpu", memory: Any = mlstm) -> list[Tensor]:
        own = [t.to(device, kind if i < 3 else torch.promote_types(kind, torch.float32)) for i, t in enumerate(leaves)]
        h = memory(*(t.requires_grad_() for t in own))
        return [t.detach().double().cpu() for t in (h, *torch.autograd.grad(h, own, weight.to(h)))]

    def of_C_alone(q: Tensor, k: Tensor, v: Tensor, i: Tensor, log_f: Tensor) -> Tensor:
        h, given = mlstm(q, k, v, i, log_f), stabilised(i, log_f)
        C, _ = decay_attention(q, k, v * given[0].exp()[..., None], given[1])
        return C * (h / C).detach()

    exact, terms = run(torch.float64, leaves), run(torch.float64, leaves, memory=of_C_alone)

    def spread(found: Tensor, i: int) -> Tensor:
        relative = (found - exact[i]).abs() / (exact[i].abs() + terms[i].abs() + exact[i].abs().median())
        return relative.flatten().quantile(torch.tensor([0.5, 0.9], dtype=torch.float64))

    turned = run(torch.float64, [t.double() * (1 + 2**-9 * draw(*t.shape).sign()) for t in leaves[:3]] + leaves[3:])
    for kind, factor in ((torch.bfloat16, 4), (torch.float32, 0.001)):
        for i, (found, near) in enumerate(zip(run(kind, leaves, device), turned, strict=True)):
            assert (spread(found, i) <= factor * spread(near, i).clamp_min(2**-9)).all()


def test_stabilised_gates_are_never_positive_and_at_first_nothing_decays() -> None:
    i, log_f = 5 * torch.randn(2, 200, 3), F.logsigmoid(5 * torch.randn(2, 200, 3))
    i[0, :7] = -torch.inf
    i_m, g, m = stabilised(i, log_f)
    assert (g <= 0).all() and (i_m <= 0).all() and m.isfinite().all()
    assert (g[:, 0] == 0).all() and (g[0, 7] == 0).all() and (i_m[0, 7] == 0).all()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
def test_mlstm_is_its_block_around_the_memory(grid: tuple[int, ...], reverse: bool) -> None:
    E, H, K = 16, 4, 4
    mixer = stirred(MLSTM(DIM, head_dim=K, reverse=reverse))
    assert not mixer.causal
    x = normal(1, L, DIM)
    inner, z = mixer.in_proj(x).chunk(2, dim=-1)
    c = F.silu(mixer.conv(inner, grid))[0]
    q, k, v = normal(L, H, K), normal(L, H, K), normal(L, H, K)
    gates = torch.zeros(L, 2 * H, dtype=torch.float64) + mixer.gate_bias
    for h in range(H):
        part = slice(h * K, (h + 1) * K)
        q[:, h], k[:, h] = (c[:, part] @ mixer.qk_weight[h]).chunk(2, dim=-1)
        v[:, h] = inner[0, :, part] @ mixer.v_weight[h]
        gates = gates + torch.cat([q[:, h], k[:, h]], -1) @ mixer.qk_gates[h] + v[:, h] @ mixer.v_gates[h]
    h = mlstm_by_hand([q, k, v, gates[:, :H], F.logsigmoid(gates[:, H:])], reverse, 1.0)
    y = F.silu(z[0]) * (group_norm(h.flatten(1), mixer.norm) + mixer.skip * c)
    assert y.shape == (L, E)
    close(mixer(x, grid)[0], mixer.out(y))


def test_all_start_as_published() -> None:
    gla, rwkv6, vision, matrix = GLA(64), RWKV6(64), VisionRWKV(64), MLSTM(64, head_dim=16)
    for mixer in (gla, rwkv6, vision, matrix):
        init_weights(mixer, depth=4)  # of a whole model
    x = torch.randn(2, L, 64)
    assert 0.8 < gla.log_alpha(gla.in_proj(x)[..., -16:]).exp().mean() < 0.99
    g = rwkv6.log_decay(x)
    torch.testing.assert_close(torch.log(-g), rwkv6.decay.expand_as(g), rtol=1e-3, atol=1e-3)
    assert (rwkv6.decay[0], rwkv6.decay[-1], vision.w[0], vision.w[-1]) == (-6, -1, -5, 3)
    torch.testing.assert_close(rwkv6.bonus.flatten()[:3], torch.tensor([0.0, 0.1, -0.1]))
    torch.testing.assert_close(vision.u[:3].exp() / 0.3, torch.tensor([0.0, 0.5, -0.5]).exp())
    torch.testing.assert_close(rwkv6.mixes, 1 - vision.mix[[1, 0, 1, 1, 0]])
    torch.testing.assert_close(matrix.gate_bias[8:], torch.linspace(3, 6, 8))
    assert matrix.qk_gates.count_nonzero() == matrix.v_gates.count_nonzero() == 0 and (matrix.skip == 1).all()
    marked = {
        name
        for mixer in (rwkv6, vision, matrix)
        for name, parameter in mixer.named_parameters()
        if getattr(parameter, "_no_weight_decay", False)
    }
    assert marked == {"mix", "mixes", "decay", "bonus", "w", "u", "gate_bias", "skip"}


@pytest.mark.parametrize("cls", [GLA, HGRN2, RWKV6, MLSTM])
def test_gates_are_fp32_under_autocast(cls: type[Mixer], monkeypatch: pytest.MonkeyPatch) -> None:
    module, seen = importlib.import_module(cls.__module__), []
    attention = module.decay_attention

    def spy(q: Tensor, k: Tensor, v: Tensor, g: Tensor, **options: object) -> tuple[Tensor, None]:
        seen.append([t.dtype for t in (q, k, v, g)])
        return attention(q, k, v, g, **options)

    monkeypatch.setattr(module, "decay_attention", spy)
    with torch.autocast("cpu", torch.bfloat16):
        cls(16)(torch.randn(2, 5, 16), (5,))
    assert seen and all(types == [torch.bfloat16] * 3 + [torch.float32] for types in seen)


def test_weights_are_fp32_under_autocast() -> None:
    # 301 tokens: bf16 cannot count them.
    k, v = torch.randn(2, 1, 301, 8, dtype=torch.bfloat16).unbind(0)
    mixer = VisionRWKV(8)
    with torch.autocast("cpu", torch.bfloat16):
        y = bi_wkv(k, v, mixer.w, mixer.u)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, bi_wkv(k.double(), v.double(), mixer.w, mixer.u).float(), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_built_or_served_says_which_numbers() -> None:
    with pytest.raises(ValueError, match="causal needs local = false"):
        GLA(DIM, causal=True)
    with pytest.raises(ValueError, match=r"expand_k 0.1 gives no queries and keys to a head of 8 values"):
        GLA(DIM, expand_k=0.1)
    with pytest.raises(ValueError, match=r"lower_bound is 1.0; it must be in \[0, 1\)"):
        HGRN2(DIM, lower_bound=1.0)
    with pytest.raises(ValueError, match=r"expand 0.1 of dim 8 leaves no inner channel"):
        MLSTM(DIM, expand=0.1)
    for cls in (GLA, HGRN2, RWKV6):
        with pytest.raises(ValueError, match="3 does not divide dim 8"):
            cls(DIM, head_dim=3)
    with pytest.raises(ValueError, match="kernel is 2; it must be odd"):
        MLSTM(DIM, kernel=2)
    with pytest.raises(ValueError, match=r"\(2, 2, 2\)"):
        GLA(DIM)(torch.randn(1, 8, DIM), (2, 2, 2))
