"""Writes the small .onnx files beside this script (needs the onnx package).

    python3 graph/onnx/testdata/make.py

The outputs are committed; the tests read them and never run this.
"""

import os

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = os.path.dirname(os.path.abspath(__file__))
FLOAT = TensorProto.FLOAT


def value(name, shape, dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def save(name, graph, opset=17, **fields):
    imports = [helper.make_opsetid("", opset)] + fields.pop("imports", [])
    model = helper.make_model(graph, opset_imports=imports, producer_name="make.py", **fields)
    model.ir_version = 10
    onnx.save(model, os.path.join(HERE, name))


def captures():
    """If in If: the inner branch reads x (an input), w (an initialiser) and y (a node's output)."""
    inner_then = helper.make_graph([helper.make_node("Add", ["x", "y"], ["it"])], "inner_then", [],
                                   [value("it", ["N", 2])])
    inner_else = helper.make_graph([helper.make_node("Mul", ["y", "w"], ["ie"])], "inner_else", [],
                                   [value("ie", ["N", 2])])
    outer_then = helper.make_graph(
        [helper.make_node("If", ["c2"], ["ot"], then_branch=inner_then, else_branch=inner_else)],
        "outer_then", [], [value("ot", ["N", 2])])
    outer_else = helper.make_graph([helper.make_node("Neg", ["x"], ["oe"])], "outer_else", [],
                                   [value("oe", ["N", 2])])
    # The If stands before the node that makes y: the file is not sorted.
    nodes = [
        helper.make_node("If", ["c1"], ["out"], name="choose", then_branch=outer_then,
                         else_branch=outer_else),
        helper.make_node("Relu", ["x"], ["y"], name="relu"),
    ]
    w = numpy_helper.from_array(np.array([1, 2], np.float32), "w")
    save("captures.onnx", helper.make_graph(
        nodes, "captures",
        [value("c1", [], TensorProto.BOOL), value("c2", [], TensorProto.BOOL),
         value("x", ["N", 2])],
        [value("out", ["N", 2])], [w]))


def functions():
    """Scaled(x; alpha) calls Twice; the second call takes alpha's default, the third has no bias."""
    own = helper.make_opsetid("local", 1)
    default = helper.make_opsetid("", 17)
    twice = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [default])
    constant = helper.make_node("Constant", [], ["k"])
    constant.attribute.append(onnx.AttributeProto(
        name="value_float", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT))
    scaled = helper.make_function(
        "local", "Scaled", ["a", "bias"], ["b", "a"],
        [constant, helper.make_node("Twice", ["a"], ["t"], domain="local"),
         helper.make_node("Mul", ["t", "k"], ["m"]),
         helper.make_node("Sum", ["m", "bias"], ["b"])],
        [default, own], attribute_protos=[helper.make_attribute("alpha", 0.5)])
    nodes = [
        helper.make_node("Scaled", ["x", "x"], ["p", "same"], name="first", domain="local",
                         alpha=3.0),
        helper.make_node("Scaled", ["p", "x"], ["q"], name="second", domain="local"),
        helper.make_node("Scaled", ["q"], ["r"], name="third", domain="local", alpha=2.0),
    ]
    save("functions.onnx",
         helper.make_graph(nodes, "functions", [value("x", [2])],
                           [value("r", [2]), value("same", [2])]),
         functions=[twice, scaled], imports=[own])


def external():
    """w lies in external.bin at byte 8; the 8 bytes before belong to nobody."""
    data = np.arange(6, dtype=np.float32)
    with open(os.path.join(HERE, "external.bin"), "wb") as f:
        f.write(b"\xff" * 8 + data.tobytes())
    w = TensorProto(name="w", data_type=FLOAT, dims=[2, 3],
                    data_location=TensorProto.EXTERNAL)
    for key, text in (("location", "external.bin"), ("offset", "8"), ("length", "24")):
        w.external_data.add(key=key, value=text)
    save("external.onnx", helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "external",
        [value("x", [2, 3])], [value("y", [2, 3])], [w]))


def tensors():
    """A sparse initialiser, int4 in both storages, half floats, strings; symbolic dims."""
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("s", FLOAT, [2], [5.0, 7.0]),
        helper.make_tensor("s_idx", TensorProto.INT64, [2, 2], [0, 1, 1, 2]), [2, 3])
    initialisers = [
        helper.make_tensor("i4", TensorProto.INT4, [5], [-8, 7, -1, 0, 3]),
        helper.make_tensor("i4raw", TensorProto.INT4, [3], b"\x8f\x02", raw=True),
        helper.make_tensor("u4", TensorProto.UINT4, [2], [15, 1]),
        helper.make_tensor("half", TensorProto.FLOAT16, [2], [1.5, -2.0]),
        helper.make_tensor("text", TensorProto.STRING, [2], [b"ab", b""]),
        helper.make_tensor("small", TensorProto.INT8, [3], [-128, 0, 127]),
        helper.make_tensor("unsigned", TensorProto.UINT32, [2], [1, 2**32 - 1]),
        helper.make_tensor("pair", TensorProto.COMPLEX64, [1], [1 + 2j]),
        helper.make_tensor("double", TensorProto.DOUBLE, [1], [0.25]),
    ]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "s"], ["y"])], "tensors",
        [value("x", ["batch", 2, None])], [value("y", ["batch", 2, 3])], initialisers)
    graph.sparse_initializer.append(sparse)
    save("tensors.onnx", graph, opset=21)


if __name__ == "__main__":
    captures()
    functions()
    external()
    tensors()
