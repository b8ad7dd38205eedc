"""Adapters as peft itself writes them, in every variant, with the logits that peft gives: what the reader is held to.

    pip install torch==2.13 transformers==5.18 safetensors numpy peft==VERSION
    OMP_NUM_THREADS=1 python test/golden/peft/make_variants.py LABEL [VARIANT ...]

LABEL "refused" writes what no reader may take. Else it writes test/golden/peft/LABEL/VARIANT/{adapter_config.json, adapter_model.safetensors, logits.safetensors, made.json}. The
base is ../model/odd, whose matrices are not square, or models/nano, whose down_proj is. A LABEL that ends in "swapped"
is written as where the experts of transformers lack is_transposed (its 4.x and some of 5): A sits on the outputs. peft
0.17.0 imports HybridCache, which transformers 5 no longer has and nothing here uses: that import was taken out.
"""
import json, pathlib, shutil, sys
import numpy as np, torch, transformers
import peft
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GptOssForCausalLM, Mxfp4Config

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
BASES = {"odd": HERE.parent / "model" / "odd", "nano": ROOT / "models" / "nano"}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
# name: (base, LoraConfig's arguments, dtype of the file)
VARIANTS = {
    "both": ("odd", dict(target_modules=ATTENTION, target_parameters=BOTH), "float32"),
    "reversed": ("odd", dict(target_modules=["q_proj"], target_parameters=BOTH[::-1]), "float32"),
    "gate-up": ("odd", dict(target_modules=[], target_parameters=BOTH[:1]), "float32"),
    "down": ("odd", dict(target_modules=[], target_parameters=BOTH[1:]), "float32"),
    "one-layer": ("odd", dict(target_modules=["v_proj"], target_parameters=["1.mlp.experts.down_proj", "0.mlp.experts.gate_up_proj"]), "float32"),
    "patterns": ("odd", dict(r=2, use_rslora=True, target_modules=["q_proj", "o_proj"], target_parameters=BOTH, rank_pattern={"gate_up_proj": 3, "layers.1.self_attn.o_proj": 1},
                             alpha_pattern={"down_proj": 5, r"layers\.[02]\.self_attn\.q_proj": 7}), "float32"),
    "layers": ("odd", dict(target_modules=ATTENTION, layers_to_transform=[0, 2], target_parameters=["2.mlp.experts.down_proj"]), "float32"),
    "regex": ("odd", dict(target_modules=r".*\.layers\.[12]\.self_attn\.(k|v)_proj"), "float32"),
    "all-linear": ("odd", dict(target_modules="all-linear"), "float32"),
    "bf16": ("odd", dict(target_modules=["q_proj"], target_parameters=BOTH), "bfloat16"),
    "f16": ("odd", dict(target_modules=["q_proj"], target_parameters=BOTH), "float16"),
    "router": ("odd", dict(target_modules=["k_proj"], target_parameters=["mlp.router.weight"]), "float32"),
    "excluded": ("odd", dict(target_modules="all-linear", exclude_modules=["k_proj", "layers.1.self_attn.o_proj"], target_parameters=BOTH[:1]), "float32"),
    "excluded-regex": ("odd", dict(target_modules=ATTENTION, exclude_modules=r".*\.layers\.[01]\..*(q|v)_proj"), "float32"),
    "overlapping": ("odd", dict(r=2, use_rslora=True, target_modules=ATTENTION, target_parameters=BOTH, rank_pattern={"layers.1.self_attn.q_proj": 3, "q_proj": 1, "^model.layers.0.self_attn.k_proj": 4, "(v|o)_proj": 5},
                                alpha_pattern={"1.mlp.experts.gate_up_proj": 9, "gate_up_proj": 2, "^model": 6}), "float32"),
    "one-layer-number": ("odd", dict(target_modules=["q_proj", "v_proj"], layers_to_transform=1, layers_pattern="layers"), "float32"),
    "full-names": ("odd", dict(target_modules=["model.layers.0.self_attn.q_proj", "2.self_attn.o_proj"], target_parameters=["model.layers.1.mlp.experts.gate_up_proj"]), "float32"),
    "fan-in": ("odd", dict(target_modules=["q_proj"], fan_in_fan_out=True, lora_dropout=0.1, init_lora_weights="gaussian"), "float32"),
    "half-patterns": ("odd", dict(r=3, target_modules=["o_proj"], target_parameters=BOTH, rank_pattern={"down_proj": 1}, alpha_pattern={"o_proj": 0.5}), "bfloat16"),
    "square": ("nano", dict(target_modules=[], target_parameters=["1.mlp.experts.gate_up_proj", "1.mlp.experts.down_proj"]), "float32"),
    "square-down": ("nano", dict(target_modules=[], target_parameters=["2.mlp.experts.down_proj"]), "float32"),
}


# What must be refused, each for the setting or the tensor that it is named after.
REFUSED = {
    "use_dora": dict(target_modules=["q_proj"], use_dora=True),
    "bias-all": dict(target_modules=["q_proj"], bias="all"),
    "bias-lora_only": dict(target_modules=["q_proj"], bias="lora_only"),
    "lora_bias": dict(target_modules=["q_proj"], lora_bias=True),
    "modules_to_save": dict(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "modules_to_save-norm": dict(target_modules=["q_proj"], modules_to_save=["input_layernorm"]),
    "trainable_token_indices": dict(target_modules=["q_proj"], trainable_token_indices=[1, 2]),
    "pissa": dict(target_modules=["q_proj"], init_lora_weights="pissa"),
    "lm_head": dict(target_modules=["q_proj", "lm_head"]),
    "embed_tokens": dict(target_modules=["q_proj", "embed_tokens"]),
    "bias-parameter": dict(target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj_bias"]),
}


def base(name):
    key = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    options = {key: torch.bfloat16, "attn_implementation": "eager", "quantization_config": Mxfp4Config(dequantize=True)}
    return GptOssForCausalLM.from_pretrained(BASES[name], **options).float().eval()


def refused():
    for name, options in REFUSED.items():
        folder = HERE / "refused" / name
        shutil.rmtree(folder, ignore_errors=True)
        get_peft_model(base("odd"), LoraConfig(**{"r": 1, "lora_alpha": 3, "task_type": "CAUSAL_LM", **options})).save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        said = json.loads((folder / "adapter_config.json").read_text())
        said["base_model_name_or_path"] = "odd"
        (folder / "adapter_config.json").write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")


def main():
    if sys.argv[1] == "refused":
        return refused()
    label, wanted = sys.argv[1], sys.argv[2:] or list(VARIANTS)
    for name in wanted:
        base_name, options, dtype = VARIANTS[name]
        rng = np.random.default_rng(sum(map(ord, name)))
        config = LoraConfig(**{"r": 1, "lora_alpha": 3, "task_type": "CAUSAL_LM", **options})
        plain = base(base_name)
        experts = [m for m in plain.modules() if getattr(m, "is_transposed", False)]
        if label.endswith("swapped"):
            for m in experts:
                m.is_transposed = False
        model = get_peft_model(plain, config).eval()
        for m in experts:
            m.is_transposed = True
        for key, p in sorted(model.named_parameters()):
            if "lora_" in key:
                std = p.shape[1] ** -0.5 if "lora_A" in key else 0.2
                with torch.no_grad():
                    p.copy_(torch.from_numpy((std * rng.standard_normal(p.shape)).astype(np.float32)).to(getattr(torch, dtype)).float())
        folder = HERE / label / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        file = folder / "adapter_model.safetensors"
        tensors = load_file(file)
        save_file({k: t.to(getattr(torch, dtype)).contiguous() for k, t in tensors.items()}, file, metadata={"format": "pt"})
        said = json.loads((folder / "adapter_config.json").read_text())
        said["base_model_name_or_path"] = base_name
        (folder / "adapter_config.json").write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")
        V = model.config.vocab_size
        tokens = [int(t) for t in rng.integers(0, V, 7)]
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].contiguous()
            with model.disable_adapter():
                bare = model(torch.tensor([tokens])).logits[0]
        if (logits - bare).abs().max() < 1e-3:
            raise SystemExit(f"{label}/{name}: peft applies nothing")
        save_file({"logits": logits}, folder / "logits.safetensors")
        versions = dict(peft=peft.__version__, transformers=transformers.__version__, torch=torch.__version__)
        (folder / "made.json").write_text(json.dumps(dict(base=base_name, tokens=tokens, versions=versions)) + "\n")
        print(label, name, {k: list(t.shape) for k, t in list(tensors.items())[:4]})


torch.manual_seed(0)
main()
