"""Linear attention, gated convolution, the two Mamba mixers and Parallel against their definitions, in float64."""

import copy
import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmeff.init import init_weights
from mmeff.mixers import Attention, BiMamba, GatedConv, LinearAttention, Mamba, Parallel
from mmeff.mixers.rotary import rotate

DIM = 8


def tokens(L: int, rows: int = 2) -> Tensor:
    return torch.randn(rows, L, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rotary", [False, True])
def test_linear_attention_is_the_double_sum(rotary: bool) -> None:
    grid, L, H, K = (3, 4), 12, 2, 4
    mixer = LinearAttention(DIM, head_dim=K, rotary=rotary, local=False).double()
    x = tokens(L)
    q, k, v = mixer.qkv(x).chunk(3, dim=-1)
    phi_q, phi_k = F.elu(q) + 1, F.elu(k) + 1
    o = torch.zeros_like(x)
    for b in range(2):
        for h in range(H):
            part = slice(h * K, (h + 1) * K)
            turned_q, turned_k = (rotate(t[b, None, None, :, part], grid)[0, 0] for t in (phi_q, phi_k))
            for i in range(L):
                above, below = 0.0, 0.0
                for j in range(L):
                    score = turned_q[i] @ turned_k[j] if rotary else phi_q[b, i, part] @ phi_k[b, j, part]
                    above = above + score * v[b, j, part]
                    below = below + phi_q[b, i, part] @ phi_k[b, j, part]
                o[b, i, part] = above / below
    close(mixer(x, grid), mixer.out(o))


def test_the_local_branch_adds_a_convolution_of_the_values() -> None:
    grid, L = (3, 4), 12
    mixer = LinearAttention(DIM, local=True).double()
    plain = copy.deepcopy(mixer)
    plain.local = None
    x = tokens(L)
    image = mixer.qkv(x)[..., 2 * DIM :].transpose(1, 2).view(2, DIM, 3, 4)
    added = mixer.local.conv(image).flatten(2).transpose(1, 2)
    close(mixer(x, grid) - plain(x, grid), added @ mixer.out.weight.T)


def test_gated_conv_is_its_equation_and_a_sequence_is_an_image_of_one_row() -> None:
    mixer = GatedConv(DIM, expand=2.0, kernel=3, conv_ratio=0.5).double()
    x = tokens(12)
    gate, identity, convolved = mixer.expand(x).split((16, 12, 4), dim=-1)
    weight, bias = mixer.conv.conv.weight, mixer.conv.conv.bias
    padded = F.pad(convolved.view(2, 3, 4, 4), (0, 0, 1, 1, 1, 1))
    sums = sum(padded[:, i : i + 3, j : j + 4] * weight[:, 0, i, j] for i in range(3) for j in range(3)) + bias
    expected = mixer.out(F.gelu(gate) * torch.cat([identity, sums.reshape(2, 12, 4)], -1))
    close(mixer(x, (3, 4)), expected)
    close(mixer(x, (12,)), mixer(x, (1, 12)))


@pytest.mark.parametrize("L", [1, 2, 9])
def test_mamba_is_its_equation(L: int) -> None:
    mixer = Mamba(DIM, state=3, conv=4).double()
    own = {name: parameter[0] for name, parameter in mixer.named_parameters() if "." not in name}
    x = tokens(L, rows=1)
    inner, z = mixer.in_proj(x[0]).chunk(2, dim=-1)
    h = torch.zeros(2 * DIM, 3, dtype=torch.float64)
    ys = []
    for t in range(L):
        taps = [own["conv_weight"][:, 3 - back] * inner[t - back] for back in range(4) if back <= t]
        u = F.silu(sum(taps) + own["conv_bias"])
        low_rank, B, C = (own["x_weight"] @ u).split((8, 3, 3))
        dt = F.softplus(own["dt_weight"] @ low_rank + own["dt_bias"])
        h = torch.exp(dt[:, None] * -own["A_log"].exp()) * h + (dt * u)[:, None] * B
        ys.append(h @ C + own["D"] * u)
    close(mixer(x, (L,))[0], mixer.out(torch.stack(ys) * F.silu(z)))


def test_bimamba_is_the_mean_of_a_scan_and_a_flipped_scan() -> None:
    grid, L = (3, 4), 12
    both = BiMamba(DIM).double()
    x = tokens(L)
    halves = []
    for k, route in enumerate(both.routes):
        one = Mamba(DIM).double()
        own = {name: value[k : k + 1] for name, value in both.state_dict().items() if "." not in name}
        one.load_state_dict({**both.state_dict(), **own})
        halves.append(one(x.flip(1), grid).flip(1) if route == "backward" else one(x, grid))
    close(both(x, grid), (halves[0] + halves[1]) / 2)


def test_mamba_starts_as_published() -> None:
    mixer = BiMamba(64, dt_rank=2)
    marked = {name for name, parameter in mixer.named_parameters() if getattr(parameter, "_no_weight_decay", False)}
    assert marked == {"A_log", "D", "dt_bias", "conv_bias"}
    init_weights(mixer, depth=4)  # of a whole model
    dt = F.softplus(mixer.dt_bias)
    assert 1e-3 * 0.99 < dt.min() < 2e-3 < 5e-2 < dt.max() < 1e-1 * 1.01
    torch.testing.assert_close(mixer.A_log.exp()[1, 5], torch.arange(1.0, 17))


def test_step_sizes_are_fp32_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = importlib.import_module("mmeff.mixers.selective_scan")
    mixer = Mamba(64)
    seen = {}
    scan = module.selective_scan_routes

    def spy(u, dt, A, *rest, **options):
        seen.update(options, low_rank=dt, A=A)
        return scan(u, dt, A, *rest, **options)

    monkeypatch.setattr(module, "selective_scan_routes", spy)
    with torch.autocast("cpu", torch.bfloat16):
        mixer(torch.randn(2, 5, 64), (5,))
    assert seen["low_rank"].dtype == torch.bfloat16
    assert seen["A"].dtype == seen["dt_weight"].dtype == seen["dt_bias"].dtype == torch.float32


def test_parallel_is_the_mean_of_normalised_mixers() -> None:
    mixer = Parallel(DIM, [Attention, BiMamba]).double()
    x = tokens(12)
    outputs = [part(x, (3, 4)) for part in mixer.mixers]
    eps = torch.finfo(torch.float64).eps
    normalised = [y * (y.square().mean(-1, keepdim=True) + eps).rsqrt() for y in outputs]
    close(mixer(x, (3, 4)), mixer.out(sum(normalised) / 2))
    assert not mixer.causal
    assert Parallel(DIM, [Mamba]).causal


def test_what_cannot_be_built_or_served_says_which_numbers() -> None:
    with pytest.raises(ValueError, match="at least one mixer"):
        Parallel(DIM, [])
    with pytest.raises(ValueError, match="kernel is 4; it must be odd"):
        GatedConv(DIM, kernel=4)
    with pytest.raises(ValueError, match="16 convolved channels of 8 inner ones"):
        GatedConv(DIM, expand=1, conv_ratio=2)
    with pytest.raises(ValueError, match=r"8 convolved channels of 0 inner ones \(dim 8, expand 0\.1\)"):
        GatedConv(DIM, expand=0.1)
    with pytest.raises(ValueError, match=r"\(2, 2, 2\)"):
        GatedConv(DIM).double()(tokens(8), (2, 2, 2))
