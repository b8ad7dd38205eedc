"""A GGUF file as the gguf package of llama.cpp reads it: its keys, and of each tensor type, shape and the digest of its
values.

    python scripts/gguf_values.py FILE

Prints JSON. Values are dequantised to f32, little-endian, in the file's order; -0 counts as 0. test/export checks them
against the checkpoint's own; test/golden/gguf holds what it printed for exports of models/nano.
"""
import hashlib
import json
import sys

import gguf
import numpy as np


def main():
    reader = gguf.GGUFReader(sys.argv[1])
    keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    tensors = {}
    for t in reader.tensors:
        values = np.asarray(gguf.quants.dequantize(t.data, t.tensor_type), dtype="<f4") + np.float32(0)
        digest = hashlib.sha256(values.tobytes()).hexdigest()
        tensors[t.name] = [t.tensor_type.name, list(reversed([int(n) for n in t.shape])), digest]
    json.dump({"keys": keys, "tensors": tensors}, sys.stdout, ensure_ascii=False, indent=1)
    print()


main()
