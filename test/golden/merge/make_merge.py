"""Makes the goldens of merging: an implementation of its own in numpy and exact fractions, and PyTorch's gradients through it.

    pip install torch==2.13 transformers==5.18 peft==0.21 safetensors numpy
    OMP_NUM_THREADS=1 python test/golden/merge/make_merge.py

blocks.safetensors  random and adversarial blocks (halfway points, scales that lose alike, W that vanishes, subnormals, the largest scales), a pair per
                    case, and what they become: NAME.base, .base_scales, .A, .B, .scale in, .blocks, .scales out
merged.safetensors  layer 1 of ../model/odd with ../train/adapter merged in: experts in MXFP4, attention and router in bf16
logits.safetensors  logits [T, V] of the first row of ../train/rows.jsonl under that model, f32
grads/              gradients of loss = sum(weight * nll) / sum(weight) over those rows to every lora_A and lora_B, by autograd, in the place of an
                    adapter's tensors: the weights are the merged ones, their gradient goes straight through to base + scale * B A
"""
import json, math, pathlib, shutil, sys
from fractions import Fraction

import numpy as np, torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "train"))
ADAPTER = HERE.parent / "train" / "adapter"
LUT = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def fma(a, b, c):
    """float32 a * b + c, rounded once: the sum of an exact product is rounded to odd in float64, then to float32."""
    p, c = np.asarray(a, np.float64) * np.asarray(b, np.float64), np.asarray(c, np.float64)
    s = p + c
    t = s - p
    error = (p - (s - t)) + (c - t)
    even = (s.view(np.int64) & 1) == 0
    return np.where((error != 0) & even, np.nextafter(s, np.where(error > 0, np.inf, -np.inf)), s).astype(np.float32)


def product(A, B):
    """A [R, C], B [N, R]: the chain over r in its order."""
    total = np.zeros((B.shape[0], A.shape[1]), np.float32)
    for r in range(A.shape[0]):
        total = fma(B[:, r : r + 1], A[r : r + 1, :], total)
    return total


def decode(blocks, scales):
    codes = np.stack([blocks & 15, blocks >> 4], -1).reshape(*blocks.shape[:-1], 32)
    values = np.array(LUT + [-x for x in LUT])[codes]
    return np.ldexp(values, scales[..., None].astype(np.int64) - 127).astype(np.float32)


def quantise(w, before):
    """32 values onto the better of two scales, exactly. before: the scale byte they had."""
    w = np.asarray(w, np.float64)
    most = float(abs(w).max())
    low = 1 if most == 0 else max(math.frexp(most)[1] - 1 - 2 + 127, 1)
    found = []
    for e in (low, low + 1):
        v = np.ldexp(abs(w), 127 - e)  # a power of two, and differences of 24 bits: all exact in float64
        codes = abs(v[:, None] - np.array(LUT)).argmin(-1)  # the first of two that are as near
        error = sum(Fraction(float(x)) ** 2 for x in np.ldexp(v - np.array(LUT)[codes], e - low))
        found.append((error, e != before, e, codes.tolist()))
    _, _, e, codes = min(found)
    codes = [c + 8 if c and x < 0 else c for x, c in zip(w, codes)]
    return [codes[2 * j] | codes[2 * j + 1] << 4 for j in range(16)], e


def merge(base, base_scales, A, B, scale):
    """base u8 [N, G, 16], scales u8 [N, G], A [R, 32 G], B [N, R]."""
    old = decode(base, base_scales)
    w = fma(np.float32(scale), product(A, B).reshape(old.shape), old)
    blocks, scales = base.copy(), base_scales.copy()
    for n, g in np.argwhere((w != old).any(-1)):
        blocks[n, g], scales[n, g] = quantise(w[n, g], int(base_scales[n, g]))
    return blocks, scales


def cases(rng):
    def random(n, low, high, most=256):
        return rng.integers(0, most, (n, 2, 16)).astype(np.uint8), rng.integers(low, high, (n, 2)).astype(np.uint8)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    def eighths(*shape):
        return (rng.integers(-24, 25, shape) / 8).astype(np.float32)

    sparse = np.zeros((1, 64), np.float32)
    sparse[0, [0, 33]] = [1, -1]
    yield "random", *random(48, 118, 126), normal(4, 64), 0.01 * normal(48, 4), 0.7
    yield "small", *random(48, 118, 126), normal(16, 64), 2e-5 * normal(48, 16), 2.0
    yield "large", *random(48, 118, 126), normal(1, 64), 3 * normal(48, 1), 1.0
    # every W is a multiple of an eighth of its scale
    yield "halfway", *random(64, 127, 128), rng.integers(-1, 2, (2, 64)).astype(np.float32), eighths(64, 2), 1.0
    # one element of a block changes, the others fit both scales; the released one is the higher
    low = rng.integers(0, 4, (64, 2, 32)) + 8 * rng.integers(0, 2, (64, 2, 32))
    low = (low[..., ::2] | low[..., 1::2] << 4).astype(np.uint8)
    yield "alike", low, np.full((64, 2), 130, np.uint8), sparse, (rng.integers(-8, 9, (64, 1)) * 0.5).astype(np.float32), 1.0
    yield "negligible", *random(32, 120, 124), sparse, np.full((32, 1), 1e-12, np.float32), 1.0
    base, scales = np.repeat(random(1, 125, 126)[0], 8, 0), np.full((8, 2), 125, np.uint8)
    yield "vanishes", base, scales, decode(base, scales)[0].reshape(1, 64), np.full((8, 1), -1, np.float32), 1.0
    yield "subnormal", *random(24, 0, 6), normal(1, 64), np.ldexp(normal(24, 1), -125).astype(np.float32), 1.0
    yield "largest", *random(24, 246, 252), normal(1, 64), np.ldexp(normal(24, 1), 120).astype(np.float32), 1.0


def make_blocks():
    out = {}
    for name, base, scales, A, B, scale in cases(np.random.default_rng(12)):
        blocks, after = merge(base, scales, A, B, scale)
        changed = (blocks != base).any(-1) | (after != scales)
        print(f"{name}: {changed.sum()} of {changed.size} blocks change, {(after != scales).sum()} their scale")
        parts = dict(base=base, base_scales=scales, A=A, B=B, scale=np.array([scale], np.float32), blocks=blocks, scales=after)
        out |= {f"{name}.{k}": np.ascontiguousarray(v) for k, v in parts.items()}
    save_file(out, HERE / "blocks.safetensors")


def released():
    with_framework = {}
    for file in sorted((HERE.parent / "model" / "odd").glob("*.safetensors")):
        if file.name.startswith("model"):
            with safe_open(file, "pt") as f:
                with_framework |= {k: f.get_tensor(k) for k in f.keys()}
    return with_framework


def model_with_adapter():
    from make_golden import base

    model = base()
    config = json.loads((ADAPTER / "adapter_config.json").read_text())
    files, lora = released(), {k: torch.from_numpy(v).requires_grad_() for k, v in load_file(ADAPTER / "adapter_model.safetensors").items()}
    E = model.config.num_local_experts
    weights, merged = {}, {}
    for key in [k for k in lora if "lora_A" in k]:
        A, B = lora[key], lora[key.replace("lora_A", "lora_B")]
        path = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        # peft wraps gate_up_proj first and down_proj around it; the router's parameter is adapted by itself
        name = {"mlp.experts.base_layer": "mlp.experts.gate_up_proj", "mlp.experts": "mlp.experts.down_proj"}.get(path.split(".", 3)[3])
        name = path if name is None else ".".join(path.split(".", 3)[:3]) + "." + name
        expert = name.endswith(("gate_up_proj", "down_proj"))
        rank = A.shape[0] // (E if expert else 1)
        patterns = [v for k, v in config["alpha_pattern"].items() if k.removesuffix(".weight") in name]
        scale = (patterns[0] if patterns else config["lora_alpha"]) / math.sqrt(rank)  # rsLoRA
        full = name if expert else name + ".weight"
        if not expert:
            w = files[full].float().numpy()
            rounded = torch.from_numpy(fma(np.float32(scale), product(A.detach().numpy(), B.detach().numpy()), w)).to(torch.bfloat16)
            merged[full] = rounded
            delta, rounded = scale * (B @ A), rounded.float()
        else:
            a, b = A.reshape(E, rank, -1), B.reshape(B.shape[0], rank, E).permute(2, 0, 1)  # [E, R, C], [E, N, R]
            done = [
                merge(files[full + "_blocks"][e].numpy(), files[full + "_scales"][e].numpy(), a[e].detach().numpy(), b[e].detach().numpy(), scale)
                for e in range(E)
            ]
            blocks, scales = (np.stack(x) for x in zip(*done))
            merged[full + "_blocks"], merged[full + "_scales"] = torch.from_numpy(blocks), torch.from_numpy(scales)
            rounded = torch.from_numpy(decode(blocks, scales).reshape(E, B.shape[0], -1)).transpose(1, 2)
            delta = scale * torch.einsum("enr,erc->ecn", b, a)
        weights[full] = rounded + (delta - delta.detach())
        assert torch.equal(weights[full], rounded)
    return model, weights, merged, lora


def make_gradients():
    from safetensors.torch import save_file as save_torch

    model, weights, merged, lora = model_with_adapter()
    rows = [json.loads(line) for line in (ADAPTER.parent / "rows.jsonl").read_text().splitlines()]
    run = lambda row: torch.func.functional_call(model, weights, (torch.tensor([row["tokens"]]),)).logits[0]
    with torch.no_grad():
        save_torch({"logits": run(rows[0]).contiguous()}, HERE / "logits.safetensors")
    save_torch({k: v.contiguous() for k, v in merged.items() if ".layers.1." in k}, HERE / "merged.safetensors")
    loss = total = 0.0
    for row in rows:
        nll = torch.nn.functional.cross_entropy(run(row)[:-1], torch.tensor(row["tokens"][1:]), reduction="none")
        w = torch.tensor(row["weights"][1:], dtype=torch.float32)
        loss, total = loss + (w * nll).sum(), total + w.sum()
    loss = loss / total
    loss.backward()
    print("loss", loss.item())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in lora.values())
    (HERE / "grads").mkdir(exist_ok=True)
    save_torch({k: p.grad for k, p in lora.items()}, HERE / "grads" / "adapter_model.safetensors")
    (HERE / "grads" / "loss.json").write_text(json.dumps(dict(loss=loss.item())) + "\n")
    shutil.copy(ADAPTER / "adapter_config.json", HERE / "grads")


if __name__ == "__main__":
    torch.manual_seed(0)
    make_blocks()
    make_gradients()
