"""Plain numpy forms of the few operators that the generated networks use.

They run a small calibration batch while a network is built (see builder.py). Layout NCHW, f64.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def _windows(x, kernel, stride):
    """x: [N,C,H,W], already padded -> [N,C,OH,OW,KH,KW]."""
    return sliding_window_view(x, kernel, axis=(2, 3))[:, :, :: stride[0], :: stride[1]]


def _padded(x, pads, value):
    return np.pad(
        x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])), constant_values=value
    )


def conv(x, weight, stride, pads, groups):
    """weight: [M, C/groups, KH, KW]; pads: top, left, bottom, right."""
    windows = _windows(_padded(x, pads, 0.0), weight.shape[2:], stride)
    if groups == 1:
        return np.tensordot(windows, weight, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
    if weight.shape[1] != 1 or weight.shape[0] != x.shape[1]:
        raise ValueError("only depthwise grouped convolutions are generated")
    return np.einsum("nchwij,cij->nchw", windows, weight[:, 0])


def pool(x, kernel, stride, pads, ceil, kind):
    """kind: 'max', or 'avg' that counts the padding. Windows that `ceil` adds are clipped."""
    value = -np.inf if kind == "max" else 0.0
    x = _padded(x, pads, value)
    if ceil:
        extra = [(-(size - k)) % s for size, k, s in zip(x.shape[2:], kernel, stride)]
        x = _padded(x, (0, 0, extra[0], extra[1]), value)
    windows = _windows(x, kernel, stride)
    return windows.max((4, 5)) if kind == "max" else windows.mean((4, 5))
