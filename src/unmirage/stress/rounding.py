"""Round-to-nearest quantization: what a weight is after it was stored in few bits, with no data to tune the scales."""

from __future__ import annotations

import torch
from torch import Tensor


def rounded(weight: Tensor, bits: int, group: int | None = None) -> Tensor:
    """The weight as it is read back after symmetric rounding to `bits` bits; shape (out, in), type as before.

    Each group of `group` consecutive inputs of an output channel (the last one may be smaller; None: the whole
    channel) has the scale s = max |w| / (2^(bits-1) - 1), and w becomes s * round(w / s). Groups of zeros stay.
    Scales and sums are float32. Raises ValueError for a weight that is no matrix and fewer than 2 bits.
    """
    if weight.ndim != 2 or bits < 2:
        raise ValueError(f"matrices are rounded to 2 bits or more, not a shape {tuple(weight.shape)} to {bits}")
    size = weight.shape[1] if group is None else min(group, weight.shape[1])
    parts = [_rounded(part, 2 ** (bits - 1) - 1) for part in torch.split(weight.float(), size, dim=1)]
    return torch.cat(parts, dim=1).to(weight.dtype)


def _rounded(part: Tensor, most: int) -> Tensor:
    """One group of each channel, in whole steps from -most to most."""
    scale = part.abs().amax(dim=1, keepdim=True) / most
    steps = torch.where(scale > 0, part / scale.clamp_min(torch.finfo(part.dtype).tiny), torch.zeros_like(part))
    return steps.round().clamp(-most, most) * scale
