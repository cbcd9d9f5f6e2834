"""Order-free linear attention against its L x L weights in float64: o, every gradient, padding, packing, errors."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmeff_kernels.full_sum import full_sum, full_sum_qkvpacked, full_sum_reference, softmax_pairs, taylor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMPLS = ["triton", "torch"]


def drawn(B: int, L: int, H: int, K: int, V: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"q": (B, L, H, K), "k": (B, L, H, K), "v": (B, L, H, V)}
    return {name: torch.randn(size, generator=generator).to(DEVICE, dtype) for name, size in sizes.items()}


def angles(L: int, K: int) -> tuple[Tensor, Tensor]:
    turn = torch.randn(L, K // 2, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    return turn.cos(), turn.sin()


def errors(given: dict[str, Tensor], impl: Any, **options: Any) -> dict[str, float]:
    """Relative errors of o and of every gradient."""
    low = {name: t.clone().requires_grad_() for name, t in given.items()}
    high = {name: t.double().requires_grad_() for name, t in given.items()}
    got, want = full_sum(**low, **options, impl=impl), full_sum(**high, **options, impl="reference")
    assert got.dtype == given["v"].dtype and got.shape == want.shape
    weight = torch.linspace(-1, 2, want.numel(), device=DEVICE).view(want.shape).to(got.dtype)
    grads = torch.autograd.grad(got, tuple(low.values()), weight)
    wanted = torch.autograd.grad(want, tuple(high.values()), weight.double())
    pairs = {"o": (got, want), **dict(zip(low, zip(grads, wanted, strict=True), strict=True))}
    return {name: ((a.double() - b).norm() / b.norm()).item() for name, (a, b) in pairs.items()}


def test_the_reference_is_a_sum_written_out() -> None:
    """Token by token, as the equation stands, with tokens' positions in a rotation."""
    given = {name: t.double() for name, t in drawn(1, 5, 1, 4, 3).items()}
    q, k = (torch.nn.functional.elu(given[name][0, :, 0]) + 1 for name in "qk")
    cos, sin = (t.double() for t in angles(5, 4))
    for i in range(5):
        numerator, denominator = torch.zeros(3, dtype=torch.float64, device=DEVICE), 0.0
        for j in range(5):
            weight = 0.0
            for m in range(2):  # as complex numbers: Re(a conj(b))
                a = torch.complex(q[i, m], q[i, m + 2]) * torch.complex(cos[i, m], sin[i, m])
                b = torch.complex(k[j, m], k[j, m + 2]) * torch.complex(cos[j, m], sin[j, m])
                weight = weight + (a * b.conj()).real
            numerator = numerator + weight * given["v"][0, j, 0]
            denominator = denominator + q[i] @ k[j]
        got = full_sum_reference(**given, rotation=(cos, sin))[0, i, 0]
        torch.testing.assert_close(got, numerator / denominator)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((2, 70, 2, 16, 16), {}),
        ((1, 3, 1, 5, 7), {"feature": "relu"}),
        ((2, 1, 2, 8, 8), {"normalize": False}),
        ((2, 130, 2, 24, 20), {"rotate": True}),
        ((2, 65, 1, 80, 16), {"rotate": True, "feature": "relu"}),
        ((1, 70, 2, 16, 16), {"normalize": False, "scale": 0.3, "feature": "identity"}),
    ],
)
def test_it_is_its_definition(sizes: tuple[int, ...], options: dict[str, Any], impl: Any) -> None:
    options = dict(options)
    if options.pop("rotate", False):
        options["rotation"] = angles(sizes[1], sizes[3])
    found = errors(drawn(*sizes), impl, **options)
    assert max(found.values()) <= 1e-5, found


@pytest.mark.parametrize("impl", IMPLS)
def test_padded_and_packed_rows_are_rows_alone(impl: Any) -> None:
    """And the padding, NaN there, is never read; its o and gradients are 0."""
    given = drawn(2, 70, 2, 16, 8)
    lengths = torch.tensor([70, 33], device=DEVICE)
    found = errors(given, impl, lengths=lengths, rotation=angles(70, 16))
    assert max(found.values()) <= 1e-5, found
    poisoned = {name: t.clone() for name, t in given.items()}
    for tensor in poisoned.values():
        tensor[1, 33:] = torch.nan
        tensor.requires_grad_()
    o = full_sum(**poisoned, lengths=lengths, impl=impl)
    torch.testing.assert_close(o[1, :33], full_sum(*(t[1:, :33] for t in given.values()), impl=impl)[0])
    assert (o[1, 33:] == 0).all()
    for gradient in torch.autograd.grad(o.square().sum(), tuple(poisoned.values())):
        assert gradient.isfinite().all() and (gradient[1, 33:] == 0).all()
    packed = {name: torch.cat([t[:1], t[1:, :33]], dim=1) for name, t in given.items()}
    ends = torch.tensor([0, 70, 103], device=DEVICE)
    found = errors(packed, impl, cu_seqlens=ends)
    assert max(found.values()) <= 1e-5, found


def test_parts_of_a_projection_are_read_in_place() -> None:
    together = torch.randn(2, 70, 3, 2, 16, device=DEVICE)
    q, k, v = together.unbind(2)
    torch.testing.assert_close(full_sum(q, k, v, impl="triton"), full_sum(q, k, v, impl="torch"))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("padded", [False, True])
def test_one_projection_has_one_gradient(impl: Any, padded: bool) -> None:
    """The same as of its parts, with angles in fp16 as good as in fp32."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(2, 70, 3, 2, 16, generator=generator).to(DEVICE).requires_grad_()
    options: dict[str, Any] = {"impl": impl, "lengths": torch.tensor([70, 33], device=DEVICE) if padded else None}
    cos, sin = angles(70, 16)
    together = full_sum_qkvpacked(qkv, rotation=(cos.half(), sin.half()), **options)
    apart = full_sum(*qkv.unbind(2), rotation=(cos, sin), **options)
    torch.testing.assert_close(together, apart, atol=1e-3, rtol=1e-3)
    grads = [torch.autograd.grad(o.square().sum(), qkv)[0] for o in (together, apart)]
    torch.testing.assert_close(*grads, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("last_stride", [1, 2])
def test_without_gradients_the_result_is_the_same(impl: Any, last_stride: int) -> None:
    qkv = torch.randn(2, 70, 3, 2, 16 * last_stride, device=DEVICE)[..., ::last_stride].requires_grad_()
    alone, together = full_sum(*qkv.unbind(2), impl=impl), full_sum_qkvpacked(qkv, impl=impl)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(full_sum(*qkv.unbind(2), impl=impl), alone)
            assert torch.equal(full_sum_qkvpacked(qkv, impl=impl), together)


@pytest.mark.parametrize("impl", IMPLS)
def test_no_feature_at_all_gives_no_nan(impl: Any) -> None:
    given = drawn(1, 9, 1, 4, 4)
    q = (-given["q"].abs()).requires_grad_()
    o = full_sum(q, given["k"], given["v"], "relu", impl=impl)
    assert (o == 0).all()
    assert torch.autograd.grad(o.sum(), q)[0].isfinite().all()


def test_feature_maps() -> None:
    x, y = torch.randn(2, 3, 4, dtype=torch.float64).unbind(0)
    products = (taylor(x) * taylor(y)).sum(-1)
    s = (x * y).sum(-1) / 2  # sqrt(K) = 2
    torch.testing.assert_close(products, 1 + s + s**2 / 2)
    pairs = softmax_pairs(x)
    assert pairs.shape == (3, 8) and (pairs > 0).all()
    torch.testing.assert_close(pairs.sum(-1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(pairs[:, :4] / pairs[:, 4:], (2 * x).exp())


def test_the_operators_are_what_they_say() -> None:
    q, k, v = drawn(2, 5, 2, 4, 6).values()
    cos, sin = angles(5, 4)
    arguments = (q, k, v, cos, sin, None, 0, True, 0, 1.0, 1e-6)
    torch.library.opcheck(torch.ops.mmeff.full_sum_forward, arguments)
    o, sums, w = torch.ops.mmeff.full_sum_forward(*arguments)
    torch.library.opcheck(torch.ops.mmeff.full_sum_backward, (o, q, k, v, cos, sin, None, o, sums, w, 0, True, 0, 1.0))
    ends = torch.tensor([0, 2, 5], device=DEVICE)
    q, k, v = (t[:1] for t in (q, k, v))
    torch.library.opcheck(torch.ops.mmeff.full_sum_forward, (q, k, v, None, None, ends, 2, False, 3, 0.5, 1e-6))


@pytest.mark.parametrize("impl", IMPLS)
def test_it_compiles_without_a_break(impl: Any) -> None:
    given = [t.requires_grad_() for t in drawn(2, 9, 2, 8, 8).values()]

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return full_sum(q, k, v, impl=impl)

    traced, plain = torch.compile(run, backend="aot_eager", fullgraph=True)(*given), run(*given)
    torch.testing.assert_close(traced, plain)
    weight = torch.randn_like(plain)
    torch.testing.assert_close(*(torch.autograd.grad(o, given, weight) for o in (traced, plain)))


def test_flops_are_those_of_a_count_by_hand() -> None:
    B, L, H, K, V = 2, 9, 3, 4, 5
    given = [t.requires_grad_() for t in drawn(B, L, H, K, V).values()]
    for impl in IMPLS:
        with FlopCounterMode(display=False) as counter:
            o = full_sum(*given, impl=impl)  # type: ignore[arg-type]
        assert counter.get_total_flops() == 2 * (2 * B * L * H * K * V), impl  # k v^T, q^T S
        with FlopCounterMode(display=False) as counter:
            o.sum().backward()
        assert counter.get_total_flops() == 4 * (2 * B * L * H * K * V), impl


def test_gradients_of_the_definition() -> None:
    given = tuple(t.double().requires_grad_() for t in drawn(1, 4, 1, 4, 3).values())
    assert torch.autograd.gradcheck(lambda *t: full_sum_reference(*t, rotation=angles(4, 4)), given)


def test_what_it_refuses() -> None:
    q, k, v = drawn(2, 5, 2, 4, 3).values()
    for arguments, options, message in (
        ((q, k[:, :4], v), {}, r"k must be \(2, 5, 2, 4\), as q, not \(2, 4, 2, 4\)"),
        ((q, k, v[:1]), {}, r"v must be \(2, 5, 2, 'V'\) beside q \(2, 5, 2, 4\), not \(1, 5, 2, 3\)"),
        ((q[0], k, v), {}, r"q must be \(B, L, H, K\) with at least one head and feature, not \(5, 2, 4\)"),
        ((q, k, v, "exp"), {}, "feature 'exp': choose one of elu\\+1, relu, identity"),
        ((q, k, v), {"impl": "cuda"}, "choose one of auto, triton, torch, reference"),
        ((q, k, v), {"rotation": angles(4, 4)}, r"rotation's cos must be \(L, K / 2\) with K even"),
        ((q, k, v), {"lengths": torch.tensor([5], device=DEVICE)}, r"lengths must be \(2,\) beside q"),
        ((q, k, v), {"cu_seqlens": torch.tensor([0, 5])}, r"q must be \(1, L, H, K\), not \(2, 5, 2, 4\)"),
        ((q.double(), k, v), {"impl": "triton"}, "q cannot be float64"),
        ((q, k, torch.zeros(2, 5, 2, 300, device=DEVICE)), {"impl": "triton"}, "up to 128 values a head"),
    ):
        with pytest.raises(ValueError, match=message):
            full_sum(*arguments, **options)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize("sizes", [
    (4, 197, 3, 64, 64), (2, 1025, 6, 64, 64), (1, 6084, 3, 32, 32), (1, 2345, 2, 128, 128), (2, 513, 2, 273, 65),
    (3, 127, 1, 20, 100), (2, 16384, 1, 64, 64),
])  # fmt: skip
@pytest.mark.parametrize("turned", [False, True])
def test_real_sizes(sizes: tuple[int, ...], turned: bool) -> None:
    """fp32 within 1e-5; bf16 (with angles in fp16) and fp16 within 1e-2."""
    options = {"rotation": angles(sizes[1], sizes[3])} if turned and sizes[3] % 2 == 0 else {}
    found = errors(drawn(*sizes), "triton", **options)
    assert max(found.values()) <= 1e-5, found
    for dtype in (torch.bfloat16, torch.float16):
        if options and dtype == torch.bfloat16:
            cos, sin = options["rotation"]
            options = {"rotation": (cos.half(), sin.half())}
        found = errors(drawn(*sizes, dtype=dtype), "triton", **options)
        assert max(found.values()) <= 1e-2, (dtype, found)


@pytest.mark.gpu
def test_the_same_input_gives_the_same_bits() -> None:
    given = [t.requires_grad_() for t in drawn(2, 6084, 3, 64, 64, torch.bfloat16).values()]
    runs = []
    for _ in range(2):
        o = full_sum(*given, impl="triton")
        runs.append((o, *torch.autograd.grad(o, given, torch.ones_like(o))))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
