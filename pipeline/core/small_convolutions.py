"""Convolutions whose kernel barely fits their image: bf16 autocast on CPUs computes them in float32.

oneDNN's bf16 weight gradient (`jit_bf16:avx512_core` of v3.12, in PyTorch 2.13) reads memory that nobody wrote, and
writes past its buffers, where the image is smaller than the kernel: the gradient is NaN, or finite and wrong by any
factor, or the process dies. docs/long-training.md has the map. No report of it was found among PyTorch's and oneDNN's
issues; the nearest is pytorch/pytorch#169688, a wrong bf16 Conv3d on AMX where a strided output is one voxel wide,
which the same rule holds off.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

_CONVOLUTIONS = {
    name.format(dims): dims
    for dims in (1, 2, 3)
    for name in ("conv{}d", "conv{}d.padding", "conv_transpose{}d" + ("" if dims == 1 else ".input"))
}


@cache
def guard_small_convolutions() -> torch.library.Library:
    """From now on CPU autocast, in this process, computes in float32 where `barely_fits`; all else is as it was.

    It takes the place of torch's own autocast step of a convolution, so it reaches modules, functional calls and
    recomputed activations alike. The output has autocast's type as before.
    """
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that a kernel is overridden; that is what this is for
        for name, dims in _CONVOLUTIONS.items():
            library.impl(name, _guarded(name, dims), "AutocastCPU", with_keyset=True)
    return library


def _guarded(name: str, dims: int) -> Any:
    """Autocast's kernel of the operator `name`; `arguments` are torch's, trailing defaults left out."""
    plain = torch.library.get_kernel(f"aten::{name}", "AutocastCPU")
    operator = getattr(torch, name.partition(".")[0])
    side_of = _given_side if "transpose" not in name else _made_side
    ones = (1,) * dims

    def convolve(keys: torch.DispatchKeySet, images: Tensor, weight: Tensor, *arguments: Any) -> Tensor:
        kernel, stride = weight.shape[-dims:], tuple(arguments[1]) if len(arguments) > 1 else ones
        small = barely_fits(side_of(images.shape[-dims:], kernel, arguments), kernel, stride)
        if not small or images.dtype is torch.float64:  # which autocast leaves alone
            result: Tensor = plain.call_boxed(keys, images, weight, *arguments)
            return result
        bias = arguments[0].float() if arguments and arguments[0] is not None else None
        with torch.autocast("cpu", enabled=False):
            result = operator(images.float(), weight.float(), bias, *arguments[1:])
        return result.to(torch.get_autocast_dtype("cpu"))

    return convolve


@lru_cache(maxsize=1024)
def barely_fits(side: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether on some axis the kernel, moved by one stride, would leave the image; 1 x 1 kernels always fit.

    Args:
        side: of a convolution's input, or of a transposed convolution's output, which has the image's part.
    """
    axes = zip(side, kernel, stride, strict=True)
    return any(length < size + step and max(size, step) > 1 for length, size, step in axes)


def _given_side(side: Sequence[int], kernel: Sequence[int], arguments: Sequence[Any]) -> Sequence[int]:
    return side


def _made_side(side: Sequence[int], kernel: Sequence[int], arguments: Sequence[Any]) -> Sequence[int]:
    """A transposed convolution's output: PyTorch's formula, for its bias, stride, padding, output padding, ...."""
    given = list(arguments[1:])
    defaults: list[Any] = [[1] * len(side), [0] * len(side), [0] * len(side), 1, [1] * len(side)]
    stride, padding, extra, _, dilation = given + defaults[len(given) :]
    return tuple(
        (length - 1) * step - 2 * pad + gap * (size - 1) + more + 1
        for length, size, step, pad, more, gap in zip(side, kernel, stride, padding, extra, dilation, strict=True)
    )
