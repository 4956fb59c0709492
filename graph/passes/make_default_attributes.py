"""Prints default_attributes.cc: the standard's default of every attribute that has one.

    python make_default_attributes.py > default_attributes.cc
"""

import onnx
from onnx import defs

LAST_OPSET = 26


def entry(op, name, value):
    t = onnx.AttributeProto
    if value.type == t.INT:
        return '    {"%s", "%s", int64_t{%d}, 0, nullptr},' % (op, name, value.i)
    if value.type == t.FLOAT:
        return '    {"%s", "%s", std::nullopt, %sf, nullptr},' % (op, name, repr(float("%.9g" % value.f)))
    if value.type == t.STRING:
        return '    {"%s", "%s", std::nullopt, 0, "%s"},' % (op, name, value.s.decode())
    return None


def main():
    newest = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain or schema.deprecated or schema.since_version > LAST_OPSET:
            continue
        known = newest.get(schema.name)
        if known is None or known.since_version < schema.since_version:
            newest[schema.name] = schema
    print("// Made by make_default_attributes.py from the ONNX standard's operator schemas.")
    print('#include "graph/passes/default_attributes.h"\n')
    print("namespace plexus {\nnamespace {\n")
    print("constexpr DefaultAttribute kDefaults[] = {")
    for op, schema in sorted(newest.items()):
        for name, attribute in sorted(schema.attributes.items()):
            line = entry(op, name, attribute.default_value)
            if line:
                print(line)
    print("};\n\n}  // namespace\n")
    print("std::span<const DefaultAttribute> DefaultAttributes() { return kDefaults; }\n")
    print("}  // namespace plexus")


if __name__ == "__main__":
    main()
