"""What all operators ask of their arguments, and say where it does not hold."""

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor


def check_triton(tensors: Mapping[str, Tensor | None]) -> None:
    """ValueError if Triton's kernels cannot serve these tensors, the first of which names the device."""
    first, x = next(iter(tensors.items()))
    assert x is not None
    if not x.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"impl 'triton' needs tensors on CUDA, {first} is on {x.device}")
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype == torch.float64:
            raise ValueError(f"impl 'triton' computes in fp32: {name} cannot be float64")


def has_shape(tensor: Tensor, *shapes: Sequence[int]) -> bool:
    """Whether a tensor has one of these shapes, compared from the last axis on: a trace with a batch of any size would
    hold a first axis that is 2 against it, and never again take a batch of 2."""
    own = tuple(tensor.shape)[::-1]
    return any(len(own) == len(shape) and own == tuple(shape)[::-1] for shape in shapes)


def innermost(tensor: Tensor) -> Tensor:
    """With the last axis contiguous, as kernels read it: the tensor itself where it is."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def is_integral(tensor: Tensor) -> bool:
    """Whether a tensor counts: no mask, no floating point, not complex."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def check_lengths(lengths: Tensor, x: Tensor, name: str = "x") -> None:
    """ValueError if `lengths` does not count the real tokens of each row of x (B, L, ...)."""
    if lengths.shape != x.shape[:1]:
        raise ValueError(f"lengths must be {(x.shape[0],)} beside {name} {tuple(x.shape)}, not {tuple(lengths.shape)}")
    if lengths.device != x.device:
        raise ValueError(f"lengths is on {lengths.device}, {name} on {x.device}")
    if not is_integral(lengths):
        raise ValueError(f"lengths must be integers, not {lengths.dtype}: of a mask the number of tokens, mask.sum(1)")
    # On another device the values are not looked at, for that would wait for it: they are the caller's to keep.
    if lengths.device.type == "cpu" and not bool(((lengths >= 0) & (lengths <= x.shape[1])).all()):
        raise ValueError(f"lengths must lie between 0 and L = {x.shape[1]}, not {lengths.tolist()}")


def check_packing(x: Tensor, cu_seqlens: Tensor, lengths: Tensor | None, name: str = "x") -> None:
    """ValueError if `cu_seqlens` does not cut the one row of x (1, L, ...) into sequences."""
    if lengths is not None:
        raise ValueError("give lengths (padded rows) or cu_seqlens (packed rows), not both")
    if x.shape[0] != 1:
        shape = "(1, L, D)" if x.dim() == 3 else "(1, L, H, K)"
        raise ValueError(
            f"packed sequences lie in one row: with cu_seqlens {name} must be {shape}, not {tuple(x.shape)}"
        )
    ends = cu_seqlens.tolist() if cu_seqlens.dim() == 1 and is_integral(cu_seqlens) else []
    if len(ends) < 2 or ends[0] != 0 or ends[-1] != x.shape[1] or any(a > b for a, b in pairwise(ends)):
        raise ValueError(f"cu_seqlens must be integers that go up from 0 to L = {x.shape[1]}, not {ends or cu_seqlens}")


def check_reach(
    tensors: dict[str, Tensor | None], axes: tuple[int, ...], tokens: int, widest: int, advice: str
) -> None:
    """ValueError if a kernel that counts what lies within `tokens` tokens in 32 bits could not reach all of a tensor.

    axes     those that are so counted, the tokens' first
    widest   numbers of a token in the tensors that the kernel makes
    advice   what to do instead
    """
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        shape, strides = tensor.shape, tensor.stride()
        reach = (tokens - 1) * strides[axes[0]] + sum((shape[axis] - 1) * strides[axis] for axis in axes[1:])
        if reach >= 2**31:
            raise ValueError(
                f"the kernels count what lies within a row in 32 bits: {tokens} tokens of {name}, "
                f"{tuple(shape)} with strides {strides}, reach over {reach} elements; {advice}"
            )
    if tokens * widest >= 2**31:
        raise ValueError(
            f"the kernels count what lies within a row in 32 bits: {tokens} tokens of {widest} numbers are too many; "
            f"{advice}"
        )
