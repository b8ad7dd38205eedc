"""Makes orpo.json, adapter.orpo/ and grads.orpo/: five AdamW steps of PyTorch on ORPO, from adapter/ and rows.jsonl.

    pip install torch==2.13 transformers==5.18 peft==0.21 trl==1.13 safetensors numpy
    OMP_NUM_THREADS=1 python test/golden/train/make_orpo.py

Rows 0 and 1 are one pair, rows 2 and 3 another, the chosen answer first. Of an answer a = -sum(weight * nll) /
sum(weight); the loss of a pair is -a of the chosen one minus what ORPOTrainer.odds_ratio_loss of TRL gives for both.
(The trainer's own first term is over prompt and answer, over all tokens of a batch at once; the paper's, as here, over
the answer.)
adapter.orpo/ is the adapter after the steps, grads.orpo/ the gradient of the first step, before clipping.
"""
import json
from types import SimpleNamespace

import torch
from make_dpo import log_probability, save
from make_golden import HERE, OPTIONS, base
from peft import PeftModel
from trl.experimental.orpo import ORPOTrainer

BETA = 0.4
SELF = SimpleNamespace(beta=BETA, accelerator=SimpleNamespace(device="cpu"))


def main():
    rows = [json.loads(line) for line in (HERE / "rows.jsonl").read_text().splitlines()]
    model = PeftModel.from_pretrained(base(), HERE / "adapter", is_trainable=True)
    params = [p for n, p in model.named_parameters() if "lora_" in n]
    assert params and all(p.requires_grad for p in params)
    opt = torch.optim.AdamW(
        params, lr=OPTIONS["lr"], betas=OPTIONS["betas"], eps=OPTIONS["eps"], weight_decay=OPTIONS["weightDecay"]
    )
    steps = []
    for step in range(OPTIONS["steps"]):
        a = torch.stack([log_probability(model, r, True) for r in rows])
        ratios, chosen, rejected, _, _ = ORPOTrainer.odds_ratio_loss(SELF, a[0::2], a[1::2])
        loss = (-a[0::2] - ratios).mean()
        opt.zero_grad()
        loss.backward()
        if step == 0:
            before = [p.detach().clone() for p in params]
            save(model, HERE / "grads.orpo", [(p, p.grad) for p in params])
            with torch.no_grad():
                for p, b in zip(params, before):
                    p.copy_(b)
        norm = torch.nn.utils.clip_grad_norm_(params, OPTIONS["clipGradNorm"])
        opt.step()
        steps.append(
            dict(loss=loss.item(), gradNorm=norm.item(), margin=(chosen - rejected).mean().item(),
                 accuracy=(chosen > rejected).float().mean().item(), rewardChosen=chosen.mean().item(),
                 rewardRejected=rejected.mean().item())
        )
        print(steps[-1])
    save(model, HERE / "adapter.orpo")
    (HERE / "orpo.json").write_text(json.dumps(dict(settings=dict(beta=BETA), steps=steps), indent=1) + "\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
