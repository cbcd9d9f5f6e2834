"""The selective scan's Triton kernels as one differentiable function: tiles, chunks, buffers."""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from .kernel import SAVED, backward_kernel, chain_kernel, ends_kernel, forward_kernel

#: Programs that keep a GPU busy. With fewer, rows are cut into chunks, of SAVED steps at least.
BUSY = 1056
#: Programs of one launch of the backward kernel, each with a scratch of its own.
LARGEST_LAUNCH = 4096


@dataclass(frozen=True)
class Tile:
    """What one warp holds: BN states (a power of two >= N) of BD channels, and T steps at a time."""

    BN: int
    BD: int
    T: int


def tile(N: int) -> Tile:
    """512 numbers of state a warp, 16 a thread; few states leave room for more steps."""
    BN = triton.next_power_of_2(N)
    return Tile(BN, min(64, max(2, 512 // BN)), 4 if BN >= 8 else 8)


def chunks(programs: int, L: int) -> tuple[int, int]:
    """Chunks that each row is cut into, and their steps, where `programs` tiles of channels would walk whole rows."""
    wanted = 1 if programs >= BUSY else -(-2 * BUSY // programs)
    span = -(-L // wanted)
    span = -(-span // SAVED) * SAVED
    return -(-L // span), span


class TritonScan(torch.autograd.Function):
    """x, dt, z (B, L, D), A (D, N), B and C (B, L, G, N), D and bias (D,), h0 (B, D, N), lengths (B,) -> y, hT.

    z, D, bias, h0 and lengths may be None. Computes in fp32 whatever the inputs' types, which A, D, bias and h0 must
    already be. y has x's type, every gradient that of its tensor.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        bias: Tensor | None,
        h0: Tensor | None,
        lengths: Tensor | None,
        softplus: bool,
        reverse: bool,
    ) -> tuple[Tensor, Tensor]:
        rows, L, channels = x.shape
        N = A.shape[1]
        x, dt, B, C = (_dense(tensor) for tensor in (x, dt, B, C))
        z = None if z is None else _dense(z)
        A = A.t().contiguous()
        D, bias = (None if tensor is None else tensor.contiguous() for tensor in (D, bias))
        start = A.new_zeros(rows, N, channels) if h0 is None else h0.mT.contiguous()
        # Padding is not written by the kernels.
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device) if lengths is None else torch.zeros_like(x)
        last = torch.empty_like(start)
        save = any(ctx.needs_input_grad)
        saves = A.new_empty(rows, -(-L // SAVED) if save else 0, N, channels)
        scan = _Scan(x, dt, z, A, B, C, D, bias, lengths, softplus, reverse)
        with torch.cuda.device_of(x):
            starts = scan.starts(x, B, start, adjoint=False)
            forward_kernel[(scan.programs,)](
                x, dt, A, B, C, D, scan.z, bias, lengths, starts, y, last, saves,
                **scan.sizes, **scan.strides("x", "dt", "z", "B", "C"), **scan.options, one=1,
                HAS_D=D is not None, SAVE=save, SAVED=SAVED, num_warps=1,
            )  # fmt: skip
        ctx.save_for_backward(x, dt, A, B, C, D, z, bias, lengths, saves)
        ctx.options = softplus, reverse, h0 is not None
        return y, last.mT

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gy: Tensor, g_last: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, dt, A, B, C, D, z, bias, lengths, saves = ctx.saved_tensors
        softplus, reverse, has_state = ctx.options
        rows, L, channels = x.shape
        N, groups = len(A), B.shape[2]
        gy = gy.contiguous()
        new = torch.empty if lengths is None else torch.zeros
        gx, gdt = (new(t.shape, dtype=t.dtype, device=x.device) for t in (x, dt))
        gz = None if z is None else new(z.shape, dtype=z.dtype, device=x.device)
        scan = _Scan(x, dt, z, A, B, C, D, bias, lengths, softplus, reverse)
        gB, gC = new(2, scan.blocks, rows, L, N, dtype=torch.float32, device=x.device)
        gA = A.new_empty(rows, scan.chunks, N, channels)
        gD, gbias = A.new_empty(2, rows, scan.chunks, channels)
        g_start = A.new_empty(rows, N, channels)
        launch = min(scan.programs, LARGEST_LAUNCH)
        scratch = A.new_empty(launch, SAVED // scan.tile.T, scan.tile.BN, scan.tile.BD)
        with torch.cuda.device_of(x):
            starts = scan.starts(gy, C, g_last.mT.contiguous(), adjoint=True)
            for before in range(0, scan.programs, launch):
                backward_kernel[(min(launch, scan.programs - before),)](
                    x, dt, A, B, C, D, scan.z, bias, lengths, saves, scratch, gy, starts,
                    gx, gdt, gA, gB, gC, gD, gz, gbias, g_start,
                    before, rows=rows, **scan.sizes, **scan.strides("x", "dt", "z", "B", "C"), **scan.options,
                    HAS_D=D is not None, SAVED=SAVED, num_warps=1,
                )  # fmt: skip
        gB, gC = (part.unflatten(0, (groups, -1)).sum(1).permute(1, 2, 0, 3) for part in (gB, gC))
        return (
            gx, gdt, gA.sum((0, 1)).t(), gB.to(B.dtype), gC.to(C.dtype), None if D is None else gD.sum((0, 1)), gz,
            None if bias is None else gbias.sum((0, 1)), g_start.mT if has_state else None, None, None, None,
        )  # fmt: skip


class _Scan:
    """One pass over given inputs: how it is divided among programs, and what every kernel is told of it."""

    def __init__(
        self,
        x: Tensor,
        dt: Tensor,
        z: Tensor | None,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        bias: Tensor | None,
        lengths: Tensor | None,
        softplus: bool,
        reverse: bool,
    ):
        self.rows, L, channels = x.shape
        groups, N = B.shape[2:]
        per_group = channels // groups
        self.tile = tile(N)
        self.blocks = groups * -(-per_group // self.tile.BD)
        self.chunks, span = chunks(self.rows * self.blocks, L)
        self.programs = self.rows * self.blocks * self.chunks
        self.dt, self.A, self.bias, self.lengths, self.has_z = dt, A, bias, lengths, z is not None
        self.z = x if z is None else z  # a kernel without a gate never reads it
        self.tensors = {"x": x, "dt": dt, "z": self.z, "B": B, "C": C}
        self.sizes = {
            "L": L, "span": span, "chunks": self.chunks, "blocks": self.blocks,
            "channels": channels, "per_group": per_group, "N": N, "reverse": int(reverse),
        }  # fmt: skip
        self.options = {
            "HAS_Z": z is not None, "HAS_BIAS": bias is not None, "HAS_LENGTHS": lengths is not None,
            "SOFTPLUS": softplus, "EVEN_D": per_group % self.tile.BD == 0,
            "EVEN_N": self.tile.BN == N, "BD": self.tile.BD, "BN": self.tile.BN, "T": self.tile.T,
        }  # fmt: skip

    def strides(self, *names: str) -> dict[str, int]:
        return _strides(**{name: self.tensors[name] for name in names})

    def starts(self, value: Tensor, weight: Tensor, first: Tensor, adjoint: bool) -> Tensor:
        """What each chunk starts with, (B, chunks, N, D): its state, or (adjoint) the gradient of its last state."""
        if self.chunks == 1:
            return first[:, None]
        rows, N, channels = first.shape
        ends = first.new_empty(rows, self.chunks, N, channels)
        totals = first.new_empty(rows, self.chunks, channels)
        ends_kernel[(self.programs,)](
            value, self.dt, self.A, weight, self.z, self.bias, self.lengths, ends, totals,
            **self.sizes, **self.strides("dt", "z"), **_strides(value=value, weight=weight), **self.options, one=1,
            ADJOINT=adjoint, num_warps=1,
        )  # fmt: skip
        chain_kernel[(triton.cdiv(N * channels, 128), rows)](
            ends, totals, self.A, first, self.chunks, channels, N, BACKWARD=adjoint, BLOCK=128, num_warps=1
        )
        return ends


def _dense(x: Tensor) -> Tensor:
    """x itself if its last axis is dense, as that of a slice of a projection's output is; else a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(**tensors: Tensor) -> dict[str, int]:
    """Of (B, L, D) or (B, L, G, N): x_b, x_l and, of four axes, x_g."""
    return {f"{name}_{axis}": t.stride(i) for name, t in tensors.items() for i, axis in enumerate("blg"[: t.dim() - 1])}
