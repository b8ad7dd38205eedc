"""Makes dpo.json and adapter.dpo/: five AdamW steps of PyTorch on the DPO loss, from adapter/ and rows.jsonl beside it.

    pip install torch==2.13 transformers==5.18 peft==0.21 safetensors numpy
    OMP_NUM_THREADS=1 python test/golden/train/make_dpo.py

Rows 0 and 1 are one pair, rows 2 and 3 another, the chosen answer first. An answer's log-probability is the sum of
-weight * nll; the reference is the base without an adapter. loss = mean of -log sigmoid(beta * difference of gains).
"""
import json
import shutil

import torch
from make_golden import HERE, OPTIONS, base
from peft import PeftModel

BETA = 0.05


def log_probability(model, row):
    logits = model(torch.tensor([row["tokens"]])).logits[0]
    nll = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(row["tokens"][1:]), reduction="none")
    return -(torch.tensor(row["weights"][1:], dtype=torch.float32) * nll).sum()


def main():
    rows = [json.loads(line) for line in (HERE / "rows.jsonl").read_text().splitlines()]
    with torch.no_grad():
        reference_model = base()
        reference = [log_probability(reference_model, r) for r in rows]
    model = PeftModel.from_pretrained(base(), HERE / "adapter", is_trainable=True)
    params = [p for n, p in model.named_parameters() if "lora_" in n]
    assert params and all(p.requires_grad for p in params)
    opt = torch.optim.AdamW(
        params, lr=OPTIONS["lr"], betas=OPTIONS["betas"], eps=OPTIONS["eps"], weight_decay=OPTIONS["weightDecay"]
    )
    steps = []
    for _ in range(OPTIONS["steps"]):
        gains = [log_probability(model, r) - ref for r, ref in zip(rows, reference)]
        margins = torch.stack([BETA * (gains[0] - gains[1]), BETA * (gains[2] - gains[3])])
        loss = -torch.nn.functional.logsigmoid(margins).mean()
        opt.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, OPTIONS["clipGradNorm"])
        opt.step()
        accuracy = (margins > 0).float().mean().item()
        steps.append(
            dict(loss=loss.item(), gradNorm=norm.item(), margin=margins.mean().item(), accuracy=accuracy)
        )
        print(steps[-1])
    folder = HERE / "adapter.dpo"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "odd"
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    (HERE / "dpo.json").write_text(json.dumps(dict(beta=BETA, steps=steps), indent=1) + "\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
