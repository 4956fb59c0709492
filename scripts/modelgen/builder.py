"""Builds an ONNX network node by node while a small calibration batch runs along.

Random weights alone make deep networks whose outputs hardly depend on their inputs. So each
BatchNormalization gets the mean and variance that the calibration batch has at that place, and each
convolution or Gemm without one is scaled and shifted to unit variance: outputs vary clearly with
inputs, nothing saturates. The calibration runs in f64 and its statistics are rounded to three
digits: so the models are the same, to the bit, on every processor, whatever order it sums in.
"""

import dataclasses

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from . import reference

OPSET = 17
IR_VERSION = 8


def rounded(x, digits=3):
    """x to `digits` significant decimal digits, f32: hides the last bits of a machine's sums."""
    x = np.asarray(x, np.float64)
    scale = 10.0 ** (digits - 1 - np.floor(np.log10(np.maximum(np.abs(x), 1e-30))))
    return (np.round(x * scale) / scale).astype(np.float32)


def calibration_images(rng, size, count=4):
    """f64[count,3,size,size], zero mean, unit variance: half coarse blobs, half noise."""
    images = rng.standard_normal((count, 3, size, size))
    for index in range(0, count, 2):
        coarse = rng.standard_normal((3, 8, 8))
        repeat = -(-size // 8)
        blobs = np.kron(coarse, np.ones((repeat, repeat)))[:, :size, :size]
        images[index] = 0.8 * blobs + 0.6 * images[index]
    return images


@dataclasses.dataclass
class Value:
    """A tensor of the network: its name and what the calibration batch makes of it."""

    name: str
    data: np.ndarray

    @property
    def channels(self):
        return self.data.shape[1]


class Network:
    """One network under construction: input `input` f32[N,3,size,size], output `logits`."""

    def __init__(self, name, seed, size):
        self.name = name
        self.size = size
        self.rng = np.random.default_rng(seed)
        self.nodes = []
        self.constants = {}
        self.input = Value("input", calibration_images(self.rng, size))
        # Smallest and largest calibration value of every value, by name: for quantisation.
        self.ranges = {"input": (float(self.input.data.min()), float(self.input.data.max()))}
        self._count = {}

    def _unique(self, kind):
        self._count[kind] = self._count.get(kind, 0) + 1
        return f"{kind}_{self._count[kind]}"

    def constant(self, name, array):
        self.constants[name] = np.ascontiguousarray(array)
        return name

    def _add(self, op, inputs, data, **attributes):
        name = self._unique(op.lower())
        output = name + "_out"
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        self.ranges[output] = (float(data.min()), float(data.max()))
        return Value(output, np.ascontiguousarray(data, np.float64))

    def conv(self, x, channels, kernel, stride=1, pad=0, groups=1, bias=False):
        """He-initialised convolution. `bias` says that no normalisation follows."""
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        pad = (pad, pad) if isinstance(pad, int) else pad
        pads = (*pad, *pad)
        shape = (channels, x.channels // groups, *kernel)
        std = np.sqrt(2.0 / np.prod(shape[1:]))
        weight = (self.rng.standard_normal(shape) * std).astype(np.float32)
        data = reference.conv(x.data, weight, (stride, stride), pads, groups)
        name = self._unique("weight")
        inputs = [x.name, name]
        if bias:
            deviation = rounded(data.std((0, 2, 3)) + 1e-3)
            weight /= deviation[:, None, None, None]
            shift = rounded(-(data.mean((0, 2, 3)) / deviation)) + self._jitter(channels, 0.0, 0.2)
            data = data / deviation[:, None, None] + shift[:, None, None]
            inputs.append(self.constant(name + "_bias", shift))
        self.constant(name, weight)
        return self._add(
            "Conv",
            inputs,
            data,
            kernel_shape=list(kernel),
            strides=[stride, stride],
            pads=list(pads),
            dilations=[1, 1],
            group=groups,
        )

    def _jitter(self, count, center, spread):
        return (center + spread * self.rng.standard_normal(count)).astype(np.float32)

    def norm(self, x, eps=1e-5, gain=1.0):
        """BatchNormalization with the calibration batch's statistics and a random affine part."""
        mean = rounded(x.data.mean((0, 2, 3)))
        variance = rounded(x.data.var((0, 2, 3)) + 1e-4)
        scale = np.abs(self._jitter(x.channels, gain, 0.2 * gain))
        shift = self._jitter(x.channels, 0.0, 0.2 * gain)
        name = self._unique("norm")
        factor = scale / np.sqrt(variance + eps)
        data = (x.data - mean[:, None, None]) * factor[:, None, None] + shift[:, None, None]
        parts = zip(("scale", "bias", "mean", "var"), (scale, shift, mean, variance))
        inputs = [self.constant(f"{name}_{part}", array) for part, array in parts]
        return self._add("BatchNormalization", [x.name, *inputs], data, epsilon=eps)

    def relu(self, x):
        return self._add("Relu", [x.name], np.maximum(x.data, 0.0))

    def relu6(self, x):
        low = self.constant("relu6_min", np.float32(0.0))
        high = self.constant("relu6_max", np.float32(6.0))
        return self._add("Clip", [x.name, low, high], np.clip(x.data, 0.0, 6.0))

    def add(self, a, b):
        return self._add("Add", [a.name, b.name], a.data + b.data)

    def concat(self, *parts):
        data = np.concatenate([part.data for part in parts], 1)
        return self._add("Concat", [part.name for part in parts], data, axis=1)

    def max_pool(self, x, kernel, stride, pad=0, ceil=False):
        return self._pool("MaxPool", "max", x, kernel, stride, pad, ceil)

    def avg_pool(self, x, kernel, stride, pad=0):
        extra = {"count_include_pad": 1}
        return self._pool("AveragePool", "avg", x, kernel, stride, pad, False, **extra)

    def _pool(self, op, kind, x, kernel, stride, pad, ceil, **extra):
        kernels, strides, pads = (kernel,) * 2, (stride,) * 2, (pad,) * 4
        data = reference.pool(x.data, kernels, strides, pads, ceil, kind)
        attributes = dict(
            kernel_shape=list(kernels), strides=list(strides), pads=list(pads), ceil_mode=int(ceil)
        )
        return self._add(op, [x.name], data, **attributes, **extra)

    def global_pool(self, x):
        return self._add("GlobalAveragePool", [x.name], x.data.mean((2, 3), keepdims=True))

    def flatten(self, x):
        return self._add("Flatten", [x.name], x.data.reshape(len(x.data), -1), axis=1)

    def linear(self, x, features):
        """Gemm whose outputs have zero mean and unit variance over the calibration batch."""
        weight = self.rng.standard_normal((features, x.data.shape[1])).astype(np.float32)
        data = x.data @ weight.T
        deviation = rounded(data.std(0) + 1e-3)
        weight /= deviation[:, None]
        shift = rounded(-(data.mean(0) / deviation)) + self._jitter(features, 0.0, 0.5)
        name = self._unique("linear")
        inputs = [x.name, self.constant(name + "_weight", weight)]
        inputs.append(self.constant(name + "_bias", shift))
        return self._add("Gemm", inputs, data / deviation + shift, transB=1)

    def model(self, output):
        """The finished ModelProto, whose one output, renamed `logits`, is `output`: the last
        node's."""
        assert list(self.nodes[-1].output) == [output.name]
        self.nodes[-1].output[0] = "logits"
        shape = ["N", 3, self.size, self.size]
        return finish(
            self.name,
            self.nodes,
            self.constants,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])],
            OPSET,
        )


def finish(name, nodes, constants, inputs, outputs, opset):
    """A checked ModelProto of the given parts; constants: name -> numpy array."""
    initializers = [numpy_helper.from_array(array, key) for key, array in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        producer_name="plexus-make-models",
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model)
    return model
