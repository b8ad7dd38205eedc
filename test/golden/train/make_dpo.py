"""Makes dpo.json, adapter.dpo/ and, of each case, adapter.CASE/ and grads.CASE/: five AdamW steps of PyTorch on losses over
pairs, from adapter/ and rows.jsonl beside it.

    pip install torch==2.13 transformers==5.18 peft==0.21 safetensors numpy
    OMP_NUM_THREADS=1 python test/golden/train/make_dpo.py

Rows 0 and 1 are one pair, rows 2 and 3 another, the chosen answer first. An answer's log-probability is the sum of
-weight * nll, of ipo divided by the sum of its weights; the reference is the base without an adapter. adapter.CASE/ is the
adapter after the steps, grads.CASE/ the gradient of the first step in the same layout, before clipping.
"""
import json
import shutil

import torch
from make_golden import HERE, OPTIONS, base
from peft import PeftModel
from torch.nn.functional import logsigmoid

# name: the recipe's settings; of dpo the files of before, without gradients
CASES = {
    "dpo": dict(beta=0.05),
    "smooth": dict(beta=0.05, labelSmoothing=0.2),
    "ipo": dict(beta=0.4, loss="ipo"),
}


def log_probability(model, row, per_weight):
    logits = model(torch.tensor([row["tokens"]])).logits[0]
    nll = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(row["tokens"][1:]), reduction="none")
    weights = torch.tensor(row["weights"][1:], dtype=torch.float32)
    return -(weights * nll).sum() / (weights.sum() if per_weight else 1)


def losses(gains, beta, labelSmoothing=0.0, loss="sigmoid"):
    gaps = torch.stack([gains[0] - gains[1], gains[2] - gains[3]])
    if loss == "ipo":
        return (gaps - 1 / (2 * beta)) ** 2
    return -(1 - labelSmoothing) * logsigmoid(beta * gaps) - labelSmoothing * logsigmoid(-beta * gaps)


def save(model, folder, tensors=None):
    """The adapter as peft saves it; with `tensors` those in place of its parameters."""
    shutil.rmtree(folder, ignore_errors=True)
    if tensors is not None:
        with torch.no_grad():
            for p, t in tensors:
                p.copy_(t)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "odd"
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def run(name, settings, rows):
    """Five steps. Rewards are not divided by weights, whatever the loss."""
    ipo = settings.get("loss") == "ipo"
    weights = [sum(r["weights"][1:]) if ipo else 1.0 for r in rows]
    with torch.no_grad():
        reference_model = base()
        reference = [log_probability(reference_model, r, ipo) for r in rows]
    model = PeftModel.from_pretrained(base(), HERE / "adapter", is_trainable=True)
    params = [p for n, p in model.named_parameters() if "lora_" in n]
    assert params and all(p.requires_grad for p in params)
    opt = torch.optim.AdamW(
        params, lr=OPTIONS["lr"], betas=OPTIONS["betas"], eps=OPTIONS["eps"], weight_decay=OPTIONS["weightDecay"]
    )
    steps = []
    for step in range(OPTIONS["steps"]):
        gains = [log_probability(model, r, ipo) - ref for r, ref in zip(rows, reference)]
        loss = losses(gains, **settings).mean()
        opt.zero_grad()
        loss.backward()
        if step == 0 and name != "dpo":
            before = [p.detach().clone() for p in params]
            save(model, HERE / f"grads.{name}", [(p, p.grad) for p in params])
            with torch.no_grad():
                for p, b in zip(params, before):
                    p.copy_(b)
        norm = torch.nn.utils.clip_grad_norm_(params, OPTIONS["clipGradNorm"])
        opt.step()
        rewards = [settings["beta"] * g.item() * w for g, w in zip(gains, weights)]
        chosen, rejected = rewards[0::2], rewards[1::2]
        margins = [c - r for c, r in zip(chosen, rejected)]
        mean = lambda x: sum(x) / len(x)  # noqa: E731
        steps.append(
            dict(loss=loss.item(), gradNorm=norm.item(), margin=mean(margins), accuracy=mean([float(m > 0) for m in margins]),
                 rewardChosen=mean(chosen), rewardRejected=mean(rejected))
        )
        print(name, steps[-1])
    save(model, HERE / f"adapter.{name}")
    return dict(name=name, settings=settings, steps=steps)


def main():
    rows = [json.loads(line) for line in (HERE / "rows.jsonl").read_text().splitlines()]
    cases = [run(name, settings, rows) for name, settings in CASES.items()]
    (HERE / "dpo.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
