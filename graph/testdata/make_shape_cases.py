"""Writes shape_cases.txt: every single-node case of the ONNX standard's own test data as one line.

    python make_shape_cases.py ONNX_TEST_DATA/node > shape_cases.txt

A line: case, operator, opset, then fields
    a:NAME=KIND:VALUE   attribute; KIND i f s is fs ss t (t: the tensor's element type only)
    i:TYPE:[DIMS]       input; with :VALUES where its contents may decide the shape; i:- left out
    o:TYPE:[DIMS]       output as the standard's data has it; o:- unused
TYPE is ONNX's number, strings are percent-encoded.
"""

import pathlib
import sys
import urllib.parse

import numpy as np
import onnx
from onnx import numpy_helper

CONTENTS_FIRST = {"ConstantOfShape", "Range", "HannWindow", "HammingWindow", "BlackmanWindow",
                  "MelWeightMatrix"}
LEFT_OUT = {"Constant", "OptionalGetElement", "OptionalHasElement"}
LAST_OPSET = 26
MAX_VALUES = 12


def quote(data):
    return urllib.parse.quote(data.decode() if isinstance(data, bytes) else data, safe="")


def attribute(a):
    t = onnx.AttributeProto
    kinds = {
        t.INT: lambda: "i:%d" % a.i,
        t.FLOAT: lambda: "f:%r" % a.f,
        t.STRING: lambda: "s:" + quote(a.s),
        t.INTS: lambda: "is:" + ",".join(map(str, a.ints)),
        t.FLOATS: lambda: "fs:" + ",".join(repr(v) for v in a.floats),
        t.STRINGS: lambda: "ss:" + ",".join(map(quote, a.strings)),
        t.TENSOR: lambda: "t:%d" % a.t.data_type,
    }
    return "a:%s=%s" % (a.name, kinds[a.type]())


def load(path):
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return tensor


def field(kind, tensor, values):
    text = "%s:%d:[%s]" % (kind, tensor.data_type, ",".join(map(str, tensor.dims)))
    small = np.prod(list(tensor.dims), dtype=np.int64) <= MAX_VALUES
    if values and small and tensor.data_type in (1, 6, 7):
        text += ":" + ",".join(repr(v.item()) for v in numpy_helper.to_array(tensor).flatten())
    return text


def case(folder):
    model = onnx.load(folder / "model.onnx")
    graph = model.graph
    if len(graph.node) != 1 or model.opset_import[0].domain or graph.initializer:
        return None
    node = graph.node[0]
    if model.opset_import[0].version > LAST_OPSET or node.domain or node.op_type in LEFT_OUT:
        return None
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.SPARSE_TENSOR)
           for a in node.attribute):
        return None
    if any(not v.type.HasField("tensor_type") for v in list(graph.input) + list(graph.output)):
        return None
    if [i for i in node.input if i] != [i.name for i in graph.input]:
        return None
    data = folder / "test_data_set_0"
    inputs = {v.name: load(data / ("input_%d.pb" % i)) for i, v in enumerate(graph.input)}
    outputs = {v.name: load(data / ("output_%d.pb" % i)) for i, v in enumerate(graph.output)}
    fields = [folder.name[5:], node.op_type, str(model.opset_import[0].version)]
    fields += [attribute(a) for a in sorted(node.attribute, key=lambda a: a.name)]
    for i, name in enumerate(node.input):
        wanted = i > 0 or node.op_type in CONTENTS_FIRST
        fields.append(field("i", inputs[name], wanted) if name else "i:-")
    for name in node.output:
        fields.append(field("o", outputs[name], False) if name in outputs else "o:-")
    return " ".join(fields)


def main():
    seen = set()
    for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        line = case(folder) if (folder / "model.onnx").exists() else None
        if line is None:
            continue
        key = line.split(" ", 1)[1]
        if key not in seen:
            seen.add(key)
            print(line)


if __name__ == "__main__":
    main()
