"""Makes adamw-8bit.json: three steps of AdamW on 300 parameters whose moments are 8-bit codes, in float64.

    pip install numpy
    python test/golden/train/make_adamw_8bit.py

Written from the paper's words (arXiv:2110.02861) and no implementation. A code stands for a middle of one of the equal
parts of [0.1, 1] in seven decades, for 0, or for 1; a sign takes half of the parts. Blocks are 256 elements, divided by
their largest magnitude; the nearest code is taken, but a second moment above 0 never becomes 0. The step works on what
the codes before it say and on gradients that are not rounded. Data whose codes float32 could see otherwise is refused.
"""
import json
import pathlib

import numpy as np

HERE = pathlib.Path(__file__).parent
N, BLOCK, STEPS = 300, 256, 3
OPTIONS = {"lr": 2e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weightDecay": 0.01, "gradScale": 0.5}


def book(signed):
    """What each code stands for: decades by rising size, the part's number in the low bits."""
    values = np.zeros(256)
    values[128 if signed else 1] = 1.0
    for decade in range(7):
        parts = 2 ** (decade if signed else decade + 1)
        edges = np.linspace(0.1, 1.0, parts + 1)
        middles = 10.0 ** (decade - 6) * (edges[:-1] + edges[1:]) / 2
        values[parts : 2 * parts] = middles
        if signed:
            values[128 + parts : 128 + 2 * parts] = -middles
    return values


def code(x, values):
    scale = np.abs(x).max()
    y = x / scale
    order = np.argsort(values)
    rising = values[order]
    middles = (rising[1:] + rising[:-1]) / 2
    doubt = np.abs(y[:, None] - middles[None, :]) / np.maximum(np.abs(middles), 1e-12)[None, :]
    assert doubt[y != 0].min() > 2e-6, doubt.min()
    return order[np.searchsorted(middles, y)], scale


def main():
    rng = np.random.default_rng(11)
    first, second = book(True), book(False)
    blocks = -(-N // BLOCK)
    p = rng.standard_normal(N).astype(np.float32).astype(np.float64)
    m, v = np.zeros(N, int), np.zeros(N, int)
    m_scales, v_scales = np.zeros(blocks), np.zeros(blocks)
    steps = []
    begin = p.copy()
    for step in range(1, STEPS + 1):
        g = (rng.standard_normal(N) * 10.0 ** rng.uniform(-5, 0, N)).astype(np.float32).astype(np.float64)
        g[rng.random(N) < 0.03] = 0
        d = g * OPTIONS["gradScale"]
        b1, b2 = OPTIONS["beta1"], OPTIONS["beta2"]
        block = np.arange(N) // BLOCK
        one = b1 * first[m] * m_scales[block] + (1 - b1) * d
        two = b2 * second[v] * v_scales[block] + (1 - b2) * d * d
        root = np.sqrt(two / (1 - b2**step)) + OPTIONS["eps"]
        p = p * (1 - OPTIONS["lr"] * OPTIONS["weightDecay"]) - OPTIONS["lr"] * one / (1 - b1**step) / root
        for b in range(blocks):
            at = slice(b * BLOCK, min(N, (b + 1) * BLOCK))
            m[at], m_scales[b] = code(one[at], first)
            v[at], v_scales[b] = code(two[at], second)
            v[at] = np.where((two[at] > 0) & (v[at] == 0), 2, v[at])
        steps.append(
            {
                "g": g.tolist(),
                "p": p.tolist(),
                "m": m.tolist(),
                "v": v.tolist(),
                "mScales": m_scales.tolist(),
                "vScales": v_scales.tolist(),
            }
        )
    out = {"options": OPTIONS, "p": begin.tolist(), "first": first.tolist(), "second": second.tolist(), "steps": steps}
    (HERE / "adamw-8bit.json").write_text(json.dumps(out) + "\n")


main()
