"""Logits of exports, computed in float32 by their real consumer: peft on a base, or transformers alone.

    python scripts/consumer_logits.py JOBS.json

JOBS.json is a list of {"dir", "base", "tokens", "out"}: with a base the folder is a PEFT adapter, with null a whole
model; tokens is [[...], ...], and `out` gets logits.0, logits.1, ... as f32 [T, V] in safetensors. The last line on
stdout is JSON: the versions that computed. `temper verify` and scripts/interop.mjs call this.
"""
import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM


def load(folder):
    """The checkpoint in bf16, which holds MXFP4 exactly, then widened."""
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    options = {"attn_implementation": "eager"}
    if config.get("quantization_config", {}).get("quant_method") == "mxfp4":
        options["quantization_config"] = transformers.Mxfp4Config(dequantize=True)
    key = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    options[key] = torch.bfloat16
    return AutoModelForCausalLM.from_pretrained(folder, **options).float().eval()


def main():
    versions = [f"transformers {transformers.__version__}", f"torch {torch.__version__.split('+')[0]}"]
    for job in json.loads(pathlib.Path(sys.argv[1]).read_text()):
        if job["base"]:
            import peft

            versions = [f"peft {peft.__version__}", *versions[-2:]]
            model = peft.PeftModel.from_pretrained(load(job["base"]), job["dir"]).float().eval()
        else:
            model = load(job["dir"])
        with torch.no_grad():
            rows = [model(torch.tensor([row])).logits[0].float().contiguous() for row in job["tokens"]]
        save_file({f"logits.{i}": t for i, t in enumerate(rows)}, job["out"])
    print(json.dumps({"versions": ", ".join(versions)}))


main()
