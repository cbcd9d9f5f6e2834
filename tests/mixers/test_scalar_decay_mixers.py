"""MILA and VSSD, which sum over all tokens, and Retention, SSD, BiSSD and Hydra, whose sums decay by one number a head:
each against its definition written as loops over tokens, in float64."""

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmeff.init import init_weights
from mmeff.mixers import MILA, SSD, VSSD, BiSSD, Hydra, Retention
from mmeff.mixers.rotary import rotate
from mmeff.mixers.ssd import SSDMixer

DIM, L = 8, 12
#: Of the state space mixers: 16 inner channels in 4 heads of 4, 3 numbers of B and of C.
SIZES = {"head_dim": 4, "state": 3}
E, H, V, N = 16, 4, 4, 3
GRIDS = [(12,), (3, 4)]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def tokens(length: int = L) -> Tensor:
    return torch.randn(1, length, DIM, dtype=torch.float64)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def rms_norm(x: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def projected(mixer: SSDMixer, x: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Parts of W_in x, without what fills it up to a multiple of 8."""
    return mixer.in_proj(x)[..., : sum(sizes)].split(sizes, dim=-1)


def along(mixer: SSD | BiSSD | Hydra, inner: Tensor, first: int) -> Tensor:
    """silu of the mixer's convolution of inner (L, D): tap w reads the token at t + first + w."""
    weight, bias = mixer.conv.weight, mixer.conv.bias
    rows = []
    for t in range(len(inner)):
        taps = [weight[:, w] * inner[t + first + w] for w in range(weight.shape[1]) if 0 <= t + first + w < len(inner)]
        rows.append(F.silu(sum(taps) + bias))
    return torch.stack(rows)


@pytest.mark.parametrize("grid", GRIDS)
def test_mila_is_a_gated_double_sum(grid: tuple[int, ...]) -> None:
    K = 4
    mixer = MILA(DIM, head_dim=K).double()
    x = tokens()
    inner, z = mixer.in_proj(x).chunk(2, dim=-1)
    u = F.silu(mixer.conv(inner, grid))
    phi_q, phi_k = (F.elu(t) + 1 for t in mixer.qk(u).chunk(2, dim=-1))
    o = torch.zeros_like(x)
    for part in (slice(0, K), slice(K, 2 * K)):
        turned_q, turned_k = (rotate(t[:, None, :, part], grid)[0, 0] for t in (phi_q, phi_k))
        for i in range(L):
            above = sum((turned_q[i] @ turned_k[j]) * u[0, j, part] for j in range(L))
            o[0, i, part] = above / sum(phi_q[0, i, part] @ phi_k[0, j, part] for j in range(L))
    close(mixer(x, grid), mixer.out(F.silu(z) * (o + mixer.local(u, grid))))


@pytest.mark.parametrize("grid", GRIDS)
def test_vssd_is_a_weighted_sum_over_all_tokens(grid: tuple[int, ...]) -> None:
    mixer = VSSD(DIM, **SIZES).double()
    x = tokens()
    z, inner, dt = projected(mixer, x, (E, E + 2 * N, H))
    u, B, C = F.silu(mixer.conv(inner, grid))[0].split((E, N, N), dim=-1)
    m = F.softplus(dt[0] + mixer.dt_bias) * mixer.A_log.exp()
    y = torch.zeros(L, E, dtype=torch.float64)
    for h in range(H):
        part = slice(h * V, (h + 1) * V)
        for i in range(L):
            y[i, part] = mixer.D[h] * u[i, part] + sum(m[j, h] * (C[i] @ B[j]) * u[j, part] for j in range(L))
    y = F.layer_norm(y, (E,), mixer.norm.weight, mixer.norm.bias)
    close(mixer(x, grid)[0], mixer.out(z[0] * y))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
def test_retention_fades_with_the_distance(grid: tuple[int, ...], causal: bool) -> None:
    K = 4
    mixer = Retention(DIM, head_dim=K, causal=causal).double()
    x = tokens()
    q, k, v, z = mixer.in_proj(x).split((DIM, DIM, 2 * DIM, 2 * DIM), dim=-1)
    o = torch.zeros(L, 2 * DIM, dtype=torch.float64)
    for h in range(2):
        gamma = 1 - 2.0 ** (-5 - h)
        turned_q, turned_k = (rotate(t[:, None, :, h * K : (h + 1) * K], grid)[0, 0] for t in (q, k))
        part = slice(h * 2 * K, (h + 1) * 2 * K)
        for i in range(L):
            seen = range(i + 1 if causal else L)
            weights = [gamma ** abs(i - j) * (turned_q[i] @ turned_k[j]) / math.sqrt(K) for j in seen]
            values = torch.stack([weight * v[0, j, part] for j, weight in zip(seen, weights, strict=True)])
            o[i, part] = rms_norm(values.sum(0))
    close(mixer(x, grid)[0], mixer.out(F.silu(z[0]) * o))
    assert mixer.causal == causal


@pytest.mark.parametrize("length", [1, 2, 9])
def test_ssd_is_its_recurrence(length: int) -> None:
    mixer = SSD(DIM, **SIZES).double()
    x = tokens(length)
    z, inner, dt = projected(mixer, x[0], (E, E + 2 * N, H))
    u, B, C = along(mixer, inner, first=-3).split((E, N, N), dim=-1)
    dt, A = F.softplus(dt + mixer.dt_bias), -mixer.A_log.exp()
    S, ys = torch.zeros(H, N, V, dtype=torch.float64), []
    for t in range(length):
        x_t = u[t].view(H, V)
        S = torch.exp(dt[t] * A)[:, None, None] * S + B[t][:, None] * (dt[t][:, None] * x_t)[:, None]
        ys.append((C[t] @ S + mixer.D[:, None] * x_t).flatten())
    y = rms_norm(F.silu(z) * torch.stack(ys), mixer.norm.weight)
    close(mixer(x, (length,))[0], mixer.out(y))


@pytest.mark.parametrize("grid", GRIDS)
def test_bissd_sees_both_sides_and_itself_once(grid: tuple[int, ...]) -> None:
    mixer = BiSSD(DIM, conv=5, **SIZES).double()
    x = tokens()
    z, inner, dt = projected(mixer, x[0], (E, E + 2 * N, H))
    u, B, C = along(mixer, inner, first=-2).split((E, N, N), dim=-1)
    dt, A = F.softplus(dt + mixer.dt_bias), -mixer.A_log.exp()
    y = torch.zeros(L, E, dtype=torch.float64)
    for h in range(H):
        part = slice(h * V, (h + 1) * V)
        for i in range(L):
            y[i, part] = mixer.D[h] * u[i, part]
            for j in range(L):
                met = dt[j + 1 : i + 1, h] if j < i else dt[i:j, h]
                y[i, part] += torch.exp(A[h] * met.sum()) * (C[i] @ B[j]) * dt[j, h] * u[j, part]
    close(mixer(x, grid)[0], mixer.out(rms_norm(F.silu(z) * y, mixer.norm.weight)))


@pytest.mark.parametrize("length", [1, 2, 9])
def test_hydra_is_two_shifted_recurrences_and_a_diagonal(length: int) -> None:
    mixer = Hydra(DIM, **SIZES).double()
    torch.nn.init.normal_(mixer.A_log)
    torch.nn.init.normal_(mixer.D)
    x = tokens(length)
    z, inner, *dts = projected(mixer, x[0], (E, E + 4 * N, H, H))
    u, *shared = along(mixer, inner, first=-3).split((E, N, N, N, N), dim=-1)
    A = -mixer.A_log.exp()
    y = torch.stack([(mixer.diagonal(u_t) + mixer.D).repeat_interleave(V) * u_t for u_t in u])
    for k, (order, step) in enumerate([(range(length), 1), (range(length - 1, -1, -1), -1)]):
        B, C = shared[2 * k : 2 * k + 2]
        dt = F.softplus(dts[k] + mixer.dt_bias)
        S = torch.zeros(H, N, V, dtype=torch.float64)
        for t in order:
            written = (dt[t][:, None] * u[t].view(H, V))[:, None]
            S = torch.exp(dt[t] * A)[:, None, None] * S + B[t][:, None] * written
            if 0 <= t + step < length:
                y[t + step] += (C[t] @ S).flatten()
    close(mixer(x, (length,))[0], mixer.out(F.silu(z) * rms_norm(y, mixer.norm.weight)))


def test_a_padded_row_of_hydra_starts_backward_at_its_own_end() -> None:
    mixer = Hydra(DIM, **SIZES).double()
    x = torch.cat([tokens(), tokens()])
    y = mixer(x, (L,), torch.tensor([5, L]))
    close(y[:1, :5], mixer(x[:1, :5], (5,)))
    close(y[1:], mixer(x[1:], (L,)))


@pytest.mark.parametrize("cls", [SSD, BiSSD, VSSD, Hydra])
def test_the_state_space_mixers_start_as_published(cls: type) -> None:
    mixer = cls(512, head_dim=8)
    marked = {name for name, parameter in mixer.named_parameters() if getattr(parameter, "_no_weight_decay", False)}
    assert marked == {"A_log", "D", "dt_bias"}
    init_weights(mixer, depth=4)  # of a whole model
    dt, A = F.softplus(mixer.dt_bias), mixer.A_log.exp()
    assert 1e-3 * 0.99 < dt.min() < 2e-3 < 5e-2 < dt.max() < 1e-1 * 1.01
    assert (mixer.D == 1).all()
    if cls is Hydra:
        assert (A == 1).all()
    else:
        assert 1 <= A.min() < 2 and 15 < A.max() <= 16.001


def test_what_is_causal_says_so() -> None:
    causal = [SSD(DIM), Retention(DIM, causal=True)]
    both = [MILA(DIM), VSSD(DIM), BiSSD(DIM), Hydra(DIM), Retention(DIM)]
    assert all(mixer.causal for mixer in causal) and not any(mixer.causal for mixer in both)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize(("cls", "module"), [(SSD, "ssd"), (Hydra, "ssd"), (Retention, "retention")])
def test_gates_are_fp32_where_all_else_is_bf16(
    cls: type, module: str, autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = importlib.import_module(f"mmeff.mixers.{module}")
    attention, seen = owner.decay_attention, []

    def spy(q, k, v, g, **options):
        seen.append((q.dtype, k.dtype, v.dtype, g.dtype))
        return attention(q, k, v, g, **options)

    monkeypatch.setattr(owner, "decay_attention", spy)
    kind = torch.float32 if autocast else torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        cls(64).to(kind)(torch.randn(2, 5, 64, dtype=kind), (5,))
    assert seen and set(seen) == {(*[torch.bfloat16] * 3, torch.float32)}


def test_heads_read_shared_features_in_place() -> None:
    mixer = SSD(DIM, **SIZES)
    convolved = torch.randn(2, L, E + 2 * N)
    parts = mixer.by_heads(convolved)
    assert [tuple(part.shape) for part in parts] == [(2, L, H, V), (2, L, H, N), (2, L, H, N)]
    assert {part.untyped_storage().data_ptr() for part in parts} == {convolved.untyped_storage().data_ptr()}


def test_what_cannot_be_built_says_which_numbers() -> None:
    with pytest.raises(ValueError, match="head_dim 3 must be even"):
        MILA(6, head_dim=3)
    with pytest.raises(ValueError, match="kernel is 4; it must be odd"):
        MILA(DIM, kernel=4)
    with pytest.raises(ValueError, match=r"expand 1.25 of dim 8 gives 10 values.*4 heads"):
        Retention(DIM, head_dim=2, expand=1.25)
    with pytest.raises(ValueError, match="head_dim 3 does not divide dim 8"):
        Retention(DIM, head_dim=3)
    with pytest.raises(ValueError, match=r"expand 0.1 of dim 8 leaves no inner channel"):
        SSD(DIM, expand=0.1)
    with pytest.raises(ValueError, match=r"head_dim 3 does not divide expand \* dim 16"):
        SSD(DIM, head_dim=3)
    for cls in (BiSSD, Hydra, VSSD):
        with pytest.raises(ValueError, match="conv is 4; it must be odd"):
            cls(DIM, conv=4)
