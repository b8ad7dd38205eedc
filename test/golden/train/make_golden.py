"""Makes the training goldens: five AdamW steps of PyTorch on a PEFT adapter over the MXFP4 checkpoint ../model/odd, in float32.

    pip install torch==2.13 transformers==5.18 peft==0.21 safetensors numpy
    OMP_NUM_THREADS=1 python test/golden/train/make_golden.py

adapter/       the adapter before training, as peft saves it: attention, both expert matrices and the router, with ranks and alphas of their own, rsLoRA
adapter.after/ the same after five steps of torch.optim.AdamW (weight decay, clipping that is active in the first three)
rows.jsonl     the data, format `tokens`; every step takes all rows: loss = sum(weight * nll) / sum(weight)
expected.json  options, loss and gradient norm (before clipping) of each step, and the logits check's tokens
logits.safetensors  logits [T, V] of the first row with the adapter before training, f32
single/        only down_proj adapted, with its logits: the wrapper then sits where both would put it
"""
import json, pathlib, shutil
import numpy as np, torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import GptOssForCausalLM, Mxfp4Config

HERE = pathlib.Path(__file__).parent
BASE = HERE.parent / "model" / "odd"
# eps is large enough that a gradient element of pure rounding noise does not become a full step.
OPTIONS = dict(lr=3e-3, betas=[0.9, 0.95], eps=1e-4, weightDecay=0.05, clipGradNorm=4.5, steps=5)


def base():
    quant = Mxfp4Config(dequantize=True)
    return GptOssForCausalLM.from_pretrained(BASE, quantization_config=quant, dtype=torch.bfloat16, attn_implementation="eager").float().eval()


def adapted(config, rng):
    model = get_peft_model(base(), config)
    for name, p in sorted(model.named_parameters()):
        if "lora_" in name:
            std = p.shape[1] ** -0.5 if "lora_A" in name else 0.1
            with torch.no_grad():
                p.copy_(torch.from_numpy((std * rng.standard_normal(p.shape)).astype(np.float32)))
            assert p.requires_grad
    return model


def save(model, folder):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    for f in folder.glob("README.md"):
        f.unlink()
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text())
    config["base_model_name_or_path"] = "odd"
    file.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def main():
    rng = np.random.default_rng(5)
    V = json.loads((BASE / "config.json").read_text())["vocab_size"]
    rows = []
    for n in (40, 23, 31, 9):
        weights = rng.choice([0.0, 0.5, 1.0, 2.0], n)
        rows.append(dict(tokens=rng.integers(0, V, n).tolist(), weights=weights.tolist()))
    (HERE / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))

    config = LoraConfig(r=2, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], rank_pattern={"gate_up_proj": 3, "layers.1.self_attn.o_proj": 4},
                        alpha_pattern={"mlp.router.weight": 1.5, "down_proj": 2},
                        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.router.weight"], task_type="CAUSAL_LM")
    model = adapted(config, rng)
    save(model, HERE / "adapter")
    with torch.no_grad():
        save_file({"logits": model(torch.tensor([rows[0]["tokens"]])).logits[0].contiguous()}, HERE / "logits.safetensors")

    params = [p for n, p in model.named_parameters() if "lora_" in n]
    opt = torch.optim.AdamW(params, lr=OPTIONS["lr"], betas=OPTIONS["betas"], eps=OPTIONS["eps"], weight_decay=OPTIONS["weightDecay"])
    steps = []
    for _ in range(OPTIONS["steps"]):
        loss = total = 0.0
        for r in rows:
            logits = model(torch.tensor([r["tokens"]])).logits[0]
            nll = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(r["tokens"][1:]), reduction="none")
            w = torch.tensor(r["weights"][1:], dtype=torch.float32)
            loss, total = loss + (w * nll).sum(), total + w.sum()
        loss = loss / total
        opt.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, OPTIONS["clipGradNorm"])
        opt.step()
        steps.append(dict(loss=loss.item(), gradNorm=norm.item()))
        print(steps[-1])
    save(model, HERE / "adapter.after")
    (HERE / "expected.json").write_text(json.dumps(dict(options=OPTIONS, steps=steps), indent=1) + "\n")

    single = adapted(LoraConfig(r=2, lora_alpha=4, target_modules=[], target_parameters=["mlp.experts.down_proj"], task_type="CAUSAL_LM"), rng)
    save(single, HERE / "single")
    with torch.no_grad():
        save_file({"logits": single(torch.tensor([rows[1]["tokens"]])).logits[0].contiguous()}, HERE / "single" / "logits.safetensors")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
