"""Makes the model goldens: small random gpt-oss checkpoints and what transformers computes with them, in float32 and bfloat16.

    pip install torch==2.13 transformers==5.18 safetensors numpy
    OMP_NUM_THREADS=1 python test/golden/model/make_goldens.py

Per case a folder: the checkpoint (MXFP4 blocks and scales packed here, by this file's own code; `dense` is saved by transformers instead, dequantised),
inputs.json (sequences, targets, weights, LoRA settings) and expected.safetensors:
  logits.<i>, logits_bf16.<i>   [T,V] of sequence i: float32 over the exact weights; transformers' own bfloat16
  nll                           per target, all sequences in order
  lora.nll, lora.A.<t>, lora.B.<t>, lora.dA.<t>, lora.dB.<t>   pairs in the natural layout (A [R,in] or [E,R,in]) and gradients of Σ weight·nll
  grad.<tensor>                 gradients of all weights (experts out×in), cases with "full"
"""
import json, pathlib, shutil
import numpy as np, torch
from safetensors.torch import save_file
from torch.func import functional_call
from transformers import GptOssForCausalLM, Mxfp4Config

HERE = pathlib.Path(__file__).parent
LUT = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6], np.float32)

BASE = dict(architectures=["GptOssForCausalLM"], model_type="gpt_oss", attention_bias=True, attention_dropout=0.0, hidden_act="silu", initializer_range=0.02,
            rms_norm_eps=1e-5, use_cache=True, tie_word_embeddings=False, output_router_logits=False, router_aux_loss_coef=0.9,
            quantization_config=dict(quant_method="mxfp4", modules_to_not_convert=["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]))
YARN = dict(rope_type="yarn", factor=8.0, beta_fast=32.0, beta_slow=1.0, original_max_position_embeddings=16, truncate=False)

CASES = {
    # head width x heads != hidden, 5 experts top-3, window 8, sequences past the window and past the original 16 positions
    "odd": dict(seed=21, lengths=[40, 23, 1], lora=dict(rank=2, alpha=6.0), shards=2, config=dict(
        vocab_size=257, hidden_size=96, intermediate_size=64, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, head_dim=32,
        num_local_experts=5, num_experts_per_tok=3, experts_per_token=3, sliding_window=8, rope_theta=150000.0, rope_scaling=YARN, swiglu_limit=7.0,
        max_position_embeddings=128, initial_context_length=16)),
    # a low clamp that is often reached, whole-number YaRN bounds, another theta, layers that begin with full attention
    "clamp": dict(seed=12, lengths=[33, 12], lora=dict(rank=3, alpha=3.0), shards=1, config=dict(
        vocab_size=301, hidden_size=160, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4, head_dim=16,
        num_local_experts=3, num_experts_per_tok=2, experts_per_token=2, sliding_window=5, rope_theta=10000.0, rope_scaling={**YARN, "factor": 4.0, "truncate": True},
        swiglu_limit=0.75, layer_types=["full_attention", "sliding_attention", "sliding_attention"], max_position_embeddings=64, initial_context_length=16)),
    # plain rotary, one kv head, every expert chosen; all gradients
    "plain": dict(seed=13, lengths=[30, 9], lora=None, shards=1, full=True, config=dict(
        vocab_size=131, hidden_size=64, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=64,
        num_local_experts=4, num_experts_per_tok=4, experts_per_token=4, sliding_window=8, rope_theta=10000.0, rope_scaling=dict(rope_type="default"),
        swiglu_limit=7.0, max_position_embeddings=64)),
}


def decode(blocks, scales):
    """blocks u8 [...,G,16], scales u8 [...,G] -> f32 [...,32G]"""
    codes = np.stack([blocks & 15, blocks >> 4], -1).reshape(*blocks.shape[:-1], 32)
    return (LUT[codes] * np.exp2(scales.astype(np.float32) - 127)[..., None]).reshape(*blocks.shape[:-2], -1)


def random_tensors(c, rng):
    """The checkpoint's tensors, with every kind of value alive: norms off 1, sinks and biases off 0, three different scales."""
    D, F, E, H, Hkv, Dh, V = (c[k] for k in ("hidden_size", "intermediate_size", "num_local_experts", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size"))
    bf = lambda std, *shape, mean=0.0: torch.from_numpy((mean + std * rng.standard_normal(shape)).astype(np.float32)).bfloat16()
    out = {}
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        for name, n, k in (("q", H * Dh, D), ("k", Hkv * Dh, D), ("v", Hkv * Dh, D), ("o", D, H * Dh)):
            out[f"{p}self_attn.{name}_proj.weight"] = bf(1.3 * k ** -0.5, n, k)
            out[f"{p}self_attn.{name}_proj.bias"] = bf(0.2, n)
        out[f"{p}self_attn.sinks"] = bf(1.0, H)
        out[f"{p}input_layernorm.weight"] = bf(0.2, D, mean=1.0)
        out[f"{p}post_attention_layernorm.weight"] = bf(0.2, D, mean=1.0)
        out[f"{p}mlp.router.weight"] = bf(2 * D ** -0.5, E, D)
        out[f"{p}mlp.router.bias"] = bf(0.5, E)
        for name, n, k in (("gate_up", 2 * F, D), ("down", D, F)):
            e = 127 + int(round(np.log2(k ** -0.5 / 2.93)))
            out[f"{p}mlp.experts.{name}_proj_blocks"] = torch.from_numpy(rng.integers(0, 256, (E, n, k // 32, 16), np.uint8))
            out[f"{p}mlp.experts.{name}_proj_scales"] = torch.from_numpy(rng.integers(e - 1, e + 2, (E, n, k // 32)).astype(np.uint8))
            out[f"{p}mlp.experts.{name}_proj_bias"] = bf(0.2, E, n)
    out["model.embed_tokens.weight"] = bf(0.8, V, D)
    out["model.norm.weight"] = bf(0.2, D, mean=1.0)
    out["lm_head.weight"] = bf(1.5 * D ** -0.5, V, D)
    return out


def write_checkpoint(folder, config, tensors, shards):
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, per = list(tensors), -(-len(tensors) // shards)
    weight_map = {}
    for s in range(shards):
        file = f"model-{s:05d}-of-{shards - 1:05d}.safetensors"
        part = names[s * per:(s + 1) * per]
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map.update({n: file for n in part})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=0))


def load(folder, config, dtype):
    model = GptOssForCausalLM.from_pretrained(folder, quantization_config=Mxfp4Config(dequantize=True), dtype=torch.bfloat16, attn_implementation="eager").to(dtype)
    for layer in model.model.layers:
        layer.mlp.experts.limit = config["swiglu_limit"]  # transformers 5.18 has it as a constant
    return model.eval().requires_grad_(False)


def lora_pairs(model, rank, rng):
    """name of the weight -> (A, B), natural layout: A [R,in] / [E,R,in], B [out,R] / [E,out,R]"""
    pairs = {}
    for name, w in model.named_parameters():
        if "layers." not in name or w.dim() < 2 or name.endswith("_bias"):
            continue
        lead, (n, k) = (w.shape[:-2], w.shape[-2:]) if w.dim() == 2 else (w.shape[:1], (w.shape[2], w.shape[1]))
        make = lambda *s, std: torch.from_numpy((std * rng.standard_normal(s)).astype(np.float32)).requires_grad_(True)
        pairs[name] = (make(*lead, rank, k, std=k ** -0.5), make(*lead, n, rank, std=0.3))
    return pairs


def nll_of(model, params, sequences, targets):
    """nll per target; targets: per sequence a list of rows predicting their next token"""
    out = []
    for tokens, rows in zip(sequences, targets):
        if not rows:
            continue
        logits = functional_call(model, params, (torch.tensor([tokens]),)).logits[0]
        out.append(torch.nn.functional.cross_entropy(logits[rows], torch.tensor([tokens[r + 1] for r in rows]), reduction="none"))
    return torch.cat(out)


def margin(model, sequences):
    """smallest gap between the last chosen and the first left-out router logit: goldens must not hang on a tie"""
    gaps, K = [], model.config.num_experts_per_tok
    hooks = [l.mlp.router.register_forward_hook(lambda m, i, o: gaps.append(o[0].sort(-1, descending=True).values)) for l in model.model.layers]
    for tokens in sequences:
        model(torch.tensor([tokens]))
    for h in hooks:
        h.remove()
    return min((g[:, K - 1] - g[:, K]).min().item() for g in gaps) if K < model.config.num_local_experts else float("inf")


def make(name, case):
    rng = np.random.default_rng(case["seed"])
    config = {**BASE, **case["config"]}
    config.setdefault("layer_types", ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(config["num_hidden_layers"])])
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tensors = random_tensors(config, rng)
    write_checkpoint(folder, config, tensors, case["shards"])
    model = load(folder, config, torch.float32)
    for i, layer in enumerate(model.model.layers):  # transformers decodes the bytes as this file does
        for key in ("gate_up_proj", "down_proj"):
            p = f"model.layers.{i}.mlp.experts.{key}"
            want = decode(tensors[p + "_blocks"].numpy(), tensors[p + "_scales"].numpy()).swapaxes(1, 2)
            assert np.array_equal(getattr(layer.mlp.experts, key).numpy(), want), p

    sequences = [rng.integers(0, config["vocab_size"], n).tolist() for n in case["lengths"]]
    gap = margin(model, sequences)
    assert gap > 2e-4, f"{name}: router logits too close ({gap}), choose another seed"
    targets = [sorted(rng.choice(n - 1, max(1, 2 * (n - 1) // 3), replace=False).tolist()) if n > 1 else [] for n in case["lengths"]]
    count = sum(map(len, targets))
    weights = torch.from_numpy(rng.uniform(0.1, 2.0, count).astype(np.float32))
    expected = {}
    bf16 = load(folder, config, torch.bfloat16)
    for i, tokens in enumerate(sequences):
        expected[f"logits.{i}"] = model(torch.tensor([tokens])).logits[0]
        expected[f"logits_bf16.{i}"] = bf16(torch.tensor([tokens])).logits[0]
    expected["nll"] = nll_of(model, {}, sequences, targets)
    if case["lora"]:
        scale = case["lora"]["alpha"] / case["lora"]["rank"]
        pairs = lora_pairs(model, case["lora"]["rank"], rng)
        base = dict(model.named_parameters())
        delta = lambda n: (scale * (pairs[n][1] @ pairs[n][0])) if base[n].dim() == 2 else (scale * (pairs[n][1] @ pairs[n][0])).transpose(1, 2)
        nll = nll_of(model, {n: base[n] + delta(n) for n in pairs}, sequences, targets)
        (nll * weights).sum().backward()
        expected["lora.nll"] = nll
        for n, (a, b) in pairs.items():
            expected.update({f"lora.A.{n}": a, f"lora.B.{n}": b, f"lora.dA.{n}": a.grad, f"lora.dB.{n}": b.grad})
    if case.get("full"):
        params = {n: p.clone().requires_grad_(True) for n, p in model.named_parameters()}
        (nll_of(model, params, sequences, targets) * weights).sum().backward()
        expected.update({f"grad.{n}": p.grad.transpose(1, 2) if p.dim() == 3 else p.grad for n, p in params.items()})
        dense = HERE / "dense"
        shutil.rmtree(dense, ignore_errors=True)
        fresh = GptOssForCausalLM(bf16.config).bfloat16()  # a model that never was MXFP4: the other one's save renames the experts by its loading rules
        fresh.load_state_dict(bf16.state_dict())
        fresh.save_pretrained(dense)
        for extra in dense.glob("generation_config.json"):
            extra.unlink()
    save_file({k: v.detach().contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    (folder / "inputs.json").write_text(json.dumps(dict(sequences=sequences, targets=targets, weights=weights.tolist(), lora=case["lora"])))
    size = sum(f.stat().st_size for f in folder.iterdir())
    err = max((expected[f"logits_bf16.{i}"].float() - expected[f"logits.{i}"]).abs().max().item() for i in range(len(sequences)))
    top = max(expected[f"logits.{i}"].abs().max().item() for i in range(len(sequences)))
    print(f"{name}: {size} bytes, router margin {gap:.2g}, |logit| up to {top:.3g}, transformers bf16 off by {err:.3g}")


if __name__ == "__main__":
    torch.manual_seed(0)
    for name, case in CASES.items():
        make(name, case)
