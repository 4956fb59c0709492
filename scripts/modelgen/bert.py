"""BERT-base with seeded weights, in the operators that a PyTorch export of opset 13 writes."""

import numpy as np
from onnx import TensorProto, helper

from .builder import finish

OPSET = 13
HIDDEN, HEADS, FEED_FORWARD, VOCABULARY, POSITIONS = 768, 12, 3072, 30522, 512


class _Writer:
    """Nodes and constants of one model; every method returns a value's name."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants = [], {}

    def op(self, kind, *inputs, output=None, **attributes):
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        node = helper.make_node(
            kind, inputs, [output], name=f"{kind}_{len(self.nodes)}", **attributes
        )
        self.nodes.append(node)
        return output

    def constant(self, array, name=None):
        name = name or f"constant_{len(self.constants)}"
        self.constants[name] = array
        return name

    def scalar(self, value, dtype=np.float32):
        return self.constant(np.asarray(value, dtype), f"scalar_{dtype.__name__}_{value}")

    def ints(self, *values):
        return self.constant(np.asarray(values, np.int64), "ints_" + "_".join(map(str, values)))

    def random(self, name, *shape, std=0.03, mean=0.0):
        # In f32 from the start: half the time and memory of casting f64.
        array = self.rng.standard_normal(shape, np.float32)
        array *= np.float32(std)
        array += np.float32(mean)
        return self.constant(array, name)

    def linear(self, x, name, rows, columns, std=0.03):
        x = self.op("MatMul", x, self.random(name + ".weight", rows, columns, std=std))
        return self.op("Add", self.random(name + ".bias", columns), x)

    def layer_norm(self, x, name, output=None):
        mean = self.op("ReduceMean", x, axes=[-1])
        centered = self.op("Sub", x, mean)
        squared = self.op("Pow", centered, self.scalar(2.0))
        variance = self.op("ReduceMean", squared, axes=[-1])
        root = self.op("Sqrt", self.op("Add", variance, self.scalar(1e-12)))
        x = self.op("Div", centered, root)
        x = self.op("Mul", x, self.random(name + ".weight", HIDDEN, std=0.1, mean=1.0))
        return self.op("Add", x, self.random(name + ".bias", HIDDEN, std=0.1), output=output)

    def gelu(self, x):
        y = self.op("Erf", self.op("Div", x, self.scalar(1.4142135381698608)))
        y = self.op("Mul", x, self.op("Add", y, self.scalar(1.0)))
        return self.op("Mul", y, self.scalar(0.5))

    def dimension(self, x, axis):
        index = self.scalar(axis, np.int64)
        return self.op(
            "Unsqueeze", self.op("Gather", self.op("Shape", x), index, axis=0), self.ints(0)
        )

    def reshaped(self, x, *tail):
        """x: [N,S,...] -> [N,S,*tail], the leading sizes read at run time."""
        parts = [self.dimension(x, 0), self.dimension(x, 1), *(self.ints(size) for size in tail)]
        return self.op("Reshape", x, self.op("Concat", *parts, axis=0))


def _embeddings(w):
    words = w.random("embeddings.word", VOCABULARY, HIDDEN, std=0.5)
    kinds = w.random("embeddings.token_type", 2, HIDDEN, std=0.2)
    places = w.random("embeddings.position", POSITIONS, HIDDEN, std=0.2)
    x = w.op("Add", w.op("Gather", words, "input_ids"), w.op("Gather", kinds, "token_type_ids"))
    ids = w.constant(np.arange(POSITIONS, dtype=np.int64)[None], "embeddings.position_ids")
    ids = w.op("Slice", ids, w.ints(0), w.dimension("input_ids", 1), w.ints(1), w.ints(1))
    return w.layer_norm(w.op("Add", x, w.op("Gather", places, ids)), "embeddings.norm")


def _attention(w, x, mask, name):
    head = HIDDEN // HEADS

    def split(part, permutation, std):
        y = w.linear(x, f"{name}.{part}", HIDDEN, HIDDEN, std=std)
        return w.op("Transpose", w.reshaped(y, HEADS, head), perm=permutation)

    query = split("query", [0, 2, 1, 3], 0.045)
    key = split("key", [0, 2, 3, 1], 0.045)
    value = split("value", [0, 2, 1, 3], 0.03)
    scores = w.op("Div", w.op("MatMul", query, key), w.scalar(8.0))
    weights = w.op("Softmax", w.op("Add", scores, mask), axis=-1)
    context = w.op("Transpose", w.op("MatMul", weights, value), perm=[0, 2, 1, 3])
    return w.linear(w.reshaped(context, HIDDEN), f"{name}.output", HIDDEN, HIDDEN)


def _layer(w, x, mask, name, output=None):
    attended = w.op("Add", _attention(w, x, mask, name + ".attention"), x)
    x = w.layer_norm(attended, name + ".attention.norm")
    y = w.gelu(w.linear(x, name + ".intermediate", HIDDEN, FEED_FORWARD))
    y = w.linear(y, name + ".output", FEED_FORWARD, HIDDEN)
    return w.layer_norm(w.op("Add", y, x), name + ".norm", output=output)


def bert_base(layers=12):
    """Inputs input_ids, attention_mask, token_type_ids int64[N,S], S <= 512; outputs
    last_hidden_state f32[N,S,768] and pooled f32[N,768]."""
    w = _Writer(768)
    mask = w.op("Unsqueeze", w.op("Unsqueeze", "attention_mask", w.ints(1)), w.ints(2))
    mask = w.op("Sub", w.scalar(1.0), w.op("Cast", mask, to=TensorProto.FLOAT))
    mask = w.op("Mul", mask, w.scalar(-10000.0))
    x = _embeddings(w)
    for index in range(layers):
        last = "last_hidden_state" if index == layers - 1 else None
        x = _layer(w, x, mask, f"layer.{index}", output=last)
    first = w.op("Gather", x, w.scalar(0, np.int64), axis=1)
    weight, bias = w.random("pooler.weight", HIDDEN, HIDDEN), w.random("pooler.bias", HIDDEN)
    w.op("Tanh", w.op("Gemm", first, weight, bias, transB=1), output="pooled")

    def info(name, kind, *shape):
        return helper.make_tensor_value_info(name, kind, shape)

    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [info(name, TensorProto.INT64, "N", "S") for name in names]
    outputs = [
        info(x, TensorProto.FLOAT, "N", "S", HIDDEN),
        info("pooled", TensorProto.FLOAT, "N", HIDDEN),
    ]
    return finish("bert-base", w.nodes, w.constants, inputs, outputs, OPSET)
