"""Turns a generated network into its int8 QDQ form, as static quantisation tools write it.

Weights are int8, symmetric, one scale per output channel; activations uint8 with a zero point,
their ranges those of the calibration batch; biases int32. BatchNormalization is folded first.
"""

import numpy as np
from onnx import helper, numpy_helper

from .builder import OPSET, finish


def _fold_norms(nodes, constants):
    """Conv -> BatchNormalization becomes one Conv with a bias. Changes `constants`."""
    producer = {node.output[0]: node for node in nodes}
    folded = []
    for node in nodes:
        if node.op_type != "BatchNormalization":
            folded.append(node)
            continue
        conv = producer[node.input[0]]
        scale, shift, mean, variance = (constants.pop(name) for name in node.input[1:])
        eps = next(a.f for a in node.attribute if a.name == "epsilon")
        factor = (scale / np.sqrt(variance + eps)).astype(np.float32)
        weight = conv.input[1]
        constants[weight] = constants[weight] * factor[:, None, None, None]
        constants[weight + "_bias"] = (shift - mean * factor).astype(np.float32)
        conv.input.append(weight + "_bias")
        conv.output[0] = node.output[0]
    return folded


class _Quantizer:
    def __init__(self, network, model):
        self.ranges = network.ranges
        self.constants = dict(network.constants)
        self.source = _fold_norms(list(model.graph.node), self.constants)
        self.nodes = []
        self.scale = {}  # activation -> (scale, zero point) names
        self.dequantized = {}  # activation -> name of its dequantised form
        readers = {}
        for node in self.source:
            for name in node.input:
                readers.setdefault(name, []).append(node.op_type)
        # What an activation function alone reads stays in f32: both become one kernel.
        self.inner = {name for name, kinds in readers.items() if kinds == ["Relu"]}

    def _qdq(self, name):
        scale, zero = self.scale[name]
        quantized, result = name + "_quantized", name + "_dequantized"
        self.nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [quantized]))
        self.nodes.append(helper.make_node("DequantizeLinear", [quantized, scale, zero], [result]))
        self.dequantized[name] = result

    def _choose_scale(self, name):
        low, high = min(self.ranges[name][0], 0.0), max(self.ranges[name][1], 0.0)
        scale = np.float32((high - low) / 255.0)
        zero = np.uint8(np.clip(np.round(-low / scale), 0, 255))
        self.constants[name + "_scale"] = np.asarray(scale)
        self.constants[name + "_zero_point"] = np.asarray(zero)
        self.scale[name] = (name + "_scale", name + "_zero_point")

    def _parameters(self, node):
        """Replaces the weight and bias of a Conv or Gemm by DequantizeLinear of integers."""
        activation, weight, bias = node.input
        values = self.constants.pop(weight)
        axes = tuple(range(1, values.ndim))
        scale = (np.abs(values).max(axes) / 127.0).astype(np.float32)
        shaped = scale.reshape(-1, *(1,) * len(axes))
        self._integers(weight, np.round(values / shaped).astype(np.int8), scale)
        step = self.constants[self.scale[activation][0]] * scale
        self._integers(bias, np.round(self.constants.pop(bias) / step).astype(np.int32), step)
        return [self.dequantized[activation], weight + "_dequantized", bias + "_dequantized"]

    def _integers(self, name, values, scale):
        parts = {"_quantized": values, "_scale": scale}
        parts["_zero_point"] = np.zeros(len(scale), values.dtype)
        for suffix, array in parts.items():
            self.constants[name + suffix] = array
        inputs = [name + suffix for suffix in parts]
        node = helper.make_node("DequantizeLinear", inputs, [name + "_dequantized"], axis=0)
        self.nodes.append(node)

    def run(self):
        self._choose_scale("input")
        self._qdq("input")
        for node in self.source:
            if node.op_type in ("Conv", "Gemm"):
                inputs = self._parameters(node)
            else:
                inputs = [self.dequantized.get(name, name) for name in node.input]
            output = node.output[0]
            if node.op_type in ("MaxPool", "Flatten"):  # they move values: one scale serves both
                self.scale[output] = self.scale[node.input[0]]
            elif output in self.ranges and output not in self.inner:
                self._choose_scale(output)
            del node.input[:]
            node.input.extend(inputs)
            self.nodes.append(node)
            if output in self.scale:
                self._qdq(output)


def quantized(network, model):
    """The QDQ form of `model`, which `network` built. The model's output stays f32."""
    quantizer = _Quantizer(network, model)
    quantizer.run()
    graph = model.graph
    return finish(
        network.name,
        quantizer.nodes,
        quantizer.constants,
        list(graph.input),
        list(graph.output),
        OPSET,
    )
