"""Loads an exported adapter with peft + transformers for real and compares all logits with Temper's.

    pip install torch==2.13 transformers==5.18 peft==0.21 safetensors
    OMP_NUM_THREADS=1 python test/golden/train/verify_peft.py --model BASE --adapter EXPORT [--rows 4] [--length 64]

BASE is the checkpoint the adapter was trained on. Both sides compute in float32 over the exact weights. Prints one JSON line; exit 1 if the largest
difference is above 1e-4 of the largest logit, or if the adapter changes nothing.
"""
import argparse, json, pathlib, subprocess, sys, tempfile
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import GptOssForCausalLM, Mxfp4Config

ROOT = pathlib.Path(__file__).resolve().parents[3]
parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--adapter", required=True)
parser.add_argument("--rows", type=int, default=4)
parser.add_argument("--length", type=int, default=64)
args = parser.parse_args()

torch.manual_seed(0)
base = GptOssForCausalLM.from_pretrained(args.model, quantization_config=Mxfp4Config(dequantize=True), dtype=torch.bfloat16, attn_implementation="eager").float().eval()
tokens = torch.randint(0, base.config.vocab_size, (args.rows, args.length))
with torch.no_grad():
    bare = [base(row[None]).logits[0] for row in tokens]
    model = PeftModel.from_pretrained(base, args.adapter).float().eval()
    theirs = [model(row[None]).logits[0] for row in tokens]
    status = model.get_layer_status()

with tempfile.TemporaryDirectory() as tmp:
    tmp = pathlib.Path(tmp)
    (tmp / "tokens.json").write_text(json.dumps(dict(tokens=tokens.tolist())))
    subprocess.run(["node", str(ROOT / "dist/cli/main.js"), "logits", "--model", args.model, "--adapter", args.adapter, "--tokens", str(tmp / "tokens.json"),
                    "--out", str(tmp / "out.safetensors"), "--precision", "f32"], check=True, stdout=sys.stderr)
    out = load_file(tmp / "out.safetensors")
ours = [out[f"logits.{i}"] for i in range(args.rows)]

top = max(t.abs().max().item() for t in theirs)
worst = max((a - b).abs().max().item() for a, b in zip(ours, theirs))
effect = max((a - b).abs().max().item() for a, b in zip(theirs, bare))
ok = worst <= 1e-4 * top and effect > 100 * worst
print(json.dumps(dict(ok=ok, compared=sum(t.numel() for t in theirs), maxDifference=worst, maxLogit=top, maxEffect=effect, adaptedLayers=len(status))))
sys.exit(0 if ok else 1)
