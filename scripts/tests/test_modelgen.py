"""The generated models: topology and quantisation, without running them."""

import hashlib
import json
import pathlib
import sys
import unittest

import numpy as np
import onnx
from onnx import numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import sample_inputs
from modelgen import bert, builder, cnn, reference


def kinds(model):
    counts = {}
    for node in model.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def parameters(model):
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)


class Reference(unittest.TestCase):
    def test_conv_matches_a_plain_sum(self):
        rng = np.random.default_rng(3)
        x, w = rng.standard_normal((1, 2, 5, 6)), rng.standard_normal((3, 2, 3, 2))
        y = reference.conv(x, w, (2, 1), (1, 0, 1, 1), 1)
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 1)))
        self.assertEqual(y.shape, (1, 3, 3, 6))
        for m, i, j in np.ndindex(3, 3, 6):
            want = (padded[0, :, 2 * i : 2 * i + 3, j : j + 2] * w[m]).sum()
            self.assertAlmostEqual(y[0, m, i, j], want)

    def test_max_pool_with_ceil_keeps_the_last_partial_window(self):
        x = np.arange(25.0).reshape(1, 1, 5, 5)
        y = reference.pool(x, (2, 2), (2, 2), (0, 0, 0, 0), True, "max")
        self.assertEqual(y[0, 0].tolist(), [[6, 8, 9], [16, 18, 19], [21, 23, 24]])

    def test_rounding_keeps_three_digits(self):
        self.assertEqual(
            builder.rounded([1.23456, -0.000987654]).tolist(),
            np.float32([1.23, -0.000988]).tolist(),
        )


class Models(unittest.TestCase):
    def test_mobilenetv2_has_the_real_ones_size_and_is_the_same_on_every_machine(self):
        first = cnn.mobilenetv2()
        found = kinds(first)
        self.assertEqual((found["Conv"], found["BatchNormalization"], found["Clip"]), (52, 52, 35))
        # 3,504,872 learnt parameters, 2 * 17,056 statistics, two bounds of Clip.
        self.assertEqual(parameters(first), 3504872 + 2 * 17056 + 2)
        content = first.SerializeToString(deterministic=True)
        wanted = json.loads(sample_inputs.EXPECTED.read_text())["models"]["mobilenetv2"]
        self.assertEqual(hashlib.sha256(content).hexdigest(), wanted)

    def test_resnet18_int8_holds_integer_weights_per_channel_and_no_norms(self):
        model = cnn.resnet18_int8()
        found = kinds(model)
        self.assertNotIn("BatchNormalization", found)
        self.assertEqual((found["Conv"], found["Gemm"]), (20, 1))
        tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type != "Conv":
                continue
            weight = node.input[1].replace("_dequantized", "")
            self.assertEqual(tensors[weight + "_quantized"].dtype, np.int8)
            scales = tensors[weight + "_scale"]
            self.assertEqual(len(scales), len(tensors[weight + "_quantized"]))

    def test_a_bert_of_one_layer_is_valid_and_has_both_outputs(self):
        model = bert.bert_base(layers=1)
        onnx.checker.check_model(model)
        self.assertEqual([o.name for o in model.graph.output], ["last_hidden_state", "pooled"])
        self.assertEqual(kinds(model)["Erf"], 1)
        self.assertEqual(model.opset_import[0].version, 13)


if __name__ == "__main__":
    unittest.main()
