"""Makes trl.json and grads.trl-LOSS/: what TRL's DPOTrainer computes on pairs of tokens, from adapter/ beside it.

    pip install torch==2.13 transformers==5.18 peft==0.21 trl==1.13 datasets safetensors numpy tokenizers
    OMP_NUM_THREADS=1 python test/golden/train/make_trl.py

trl.json holds the pairs as rows of format `preference` (the prompt weighs 0, the answer 1), and for each loss what
DPOTrainer's own collator and _compute_loss give: loss, accuracies, margins and rewards. grads.trl-LOSS/ is the gradient
of every adapter tensor, in the adapter's layout. The reference is the base without an adapter; no router loss.
"""
import json
import tempfile

import numpy as np
import torch
from datasets import Dataset
from make_dpo import save
from make_golden import HERE, base
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

# loss: beta. Its loss "sigmoid" looks at no label_smoothing; that is in make_dpo.py.
CASES = {"sigmoid": 0.05, "ipo": 0.4}
# tokens of prompt, chosen and rejected answer
LENGTHS = ((9, 14, 6), (5, 4, 21), (1, 1, 9), (3, 17, 1))


def trainer_of(model, loss, beta, vocab):
    tokenizer = Tokenizer(models.WordLevel({f"t{i}": i for i in range(vocab)}, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    args = DPOConfig(
        output_dir=tempfile.mkdtemp(), beta=beta, loss_type=[loss], bf16=False, use_cpu=True, report_to=[],
        router_aux_loss_coef=0.0, gradient_checkpointing=False, disable_dropout=True, max_length=None,
    )
    return DPOTrainer(
        model=model,
        ref_model=base(),
        args=args,
        train_dataset=Dataset.from_list([dict(prompt="t1 t2", chosen="t3", rejected="t4")]),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="t0", eos_token="t1"),
    )


def main():
    vocab = json.loads((HERE.parent / "model" / "odd" / "config.json").read_text())["vocab_size"]
    rng = np.random.default_rng(11)
    draw = lambda n: rng.integers(0, vocab, n).tolist()  # noqa: E731
    pairs = [dict(prompt_ids=draw(p), chosen_ids=draw(c), rejected_ids=draw(r)) for p, c, r in LENGTHS]
    side = lambda p, key: dict(  # noqa: E731
        tokens=p["prompt_ids"] + p[key], weights=[0] * len(p["prompt_ids"]) + [1] * len(p[key])
    )
    rows = [dict(chosen=side(p, "chosen_ids"), rejected=side(p, "rejected_ids")) for p in pairs]
    cases = []
    for loss, beta in CASES.items():
        model = PeftModel.from_pretrained(base(), HERE / "adapter", is_trainable=True)
        trainer = trainer_of(model, loss, beta, vocab)
        inputs = DataCollatorForPreference(pad_token_id=0)(pairs)
        trainer.model.train()
        value = trainer._compute_loss(trainer.model, dict(inputs), False)
        value.backward()
        params = [p for n, p in trainer.model.named_parameters() if "lora_" in n]
        assert params and all(p.grad is not None for p in params)
        metrics = {k.split("/")[1]: v[-1] for k, v in trainer._metrics["train"].items() if k.startswith("rewards/")}
        cases.append(dict(loss=loss, beta=beta, value=value.item(), **metrics))
        print(cases[-1])
        save(trainer.model, HERE / f"grads.trl-{loss}", [(p, p.grad) for p in params])
    (HERE / "trl.json").write_text(json.dumps(dict(rows=rows, cases=cases)) + "\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
