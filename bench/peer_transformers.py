#!/usr/bin/env python3
"""The peer of `temper bench --device cuda`: transformers + PEFT on the same shapes, the same tokens, in bf16.

Prints one JSON object: tokens per second of a LoRA step (forward, backward, AdamW; attention and experts, rank 16), of prefill and of decode, and
peak device memory. What does not run (out of memory, an attention that is missing) is reported as such, with the reason, never left out.

  python3 bench/peer_transformers.py --preset 20b --lora 4096 --prefill 4096 --decode 1
  python3 bench/peer_transformers.py --preset nano --device cpu --lora 64 --steps 2     # a check of the script itself
"""
import argparse
import gc
import json
import statistics
import time

import torch
import transformers
from transformers import AutoModelForCausalLM, GptOssConfig

PRESETS = {
    "20b": dict(num_hidden_layers=24, num_local_experts=32),
    "120b": dict(num_hidden_layers=36, num_local_experts=128),
    "slice": dict(num_hidden_layers=2, num_local_experts=4),
    "nano": dict(num_hidden_layers=2, num_local_experts=4, hidden_size=64, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=512),
}


def model_of(args, attention):
    layers = PRESETS[args.preset]["num_hidden_layers"]
    config = GptOssConfig(**{**PRESETS[args.preset], "layer_types": ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(layers)]})
    torch.manual_seed(args.seed)
    with torch.device(args.device):
        torch.set_default_dtype(torch.bfloat16)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        torch.set_default_dtype(torch.float32)
    return model


def with_lora(model, rank):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
                        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])
    model = get_peft_model(model, config)
    for p in model.parameters():
        if p.requires_grad:
            p.data = p.data.float()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    return model


class Clock:
    """Wall time of work that is done, in seconds; on a GPU the device is waited for."""

    def __init__(self, device):
        self.device = device

    def now(self):
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def timed(args, work):
    clock = Clock(args.device)
    work()  # warm-up
    seconds = []
    for _ in range(args.steps):
        start = clock.now()
        work()
        seconds.append(clock.now() - start)
    return statistics.median(seconds)


def peak(args):
    return torch.cuda.max_memory_allocated() if args.device == "cuda" else None


def attempt(args, name, tokens, build):
    """One row: tokens/s or the reason why there is none."""
    row = {"name": name, "tokens": tokens}
    gc.collect()
    if args.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        work, count = build()
        seconds = timed(args, work)
        row |= {"seconds": seconds, "tokens_per_second": count / seconds, "peak_bytes": peak(args)}
    except (torch.OutOfMemoryError, RuntimeError, ValueError, ImportError) as e:
        row["failed"] = f"{type(e).__name__}: {str(e).splitlines()[0][:200]}"
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="20b")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--lora", type=lambda s: [int(x) for x in s.split(",") if x], default=[4096], help="tokens of a LoRA step, comma-separated")
    parser.add_argument("--prefill", type=lambda s: [int(x) for x in s.split(",") if x], default=[])
    parser.add_argument("--decode", type=lambda s: [int(x) for x in s.split(",") if x], default=[], help="batch sizes")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3, help="timed repetitions; the median is reported")
    parser.add_argument("--attention", default="eager", help="attn_implementation of transformers")
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()

    import peft

    rows, trainable = [], 0
    model = model_of(args, args.attention)
    vocabulary = model.config.vocab_size
    generator = torch.Generator().manual_seed(args.seed)
    draw = lambda *shape: torch.randint(0, vocabulary, shape, generator=generator).to(args.device)

    @torch.no_grad()
    def prefill(tokens):
        ids = draw(1, tokens)
        return (lambda: model(input_ids=ids, logits_to_keep=1, use_cache=False)), tokens

    @torch.no_grad()
    def decode(batch):
        past = model(input_ids=draw(batch, 16), logits_to_keep=1, use_cache=True).past_key_values
        ids, steps = draw(batch, 1), 16

        @torch.no_grad()
        def work():
            for _ in range(steps):
                model(input_ids=ids, past_key_values=past, use_cache=True)

        return work, batch * steps

    model.eval()
    with torch.no_grad():
        for tokens in args.prefill:
            rows.append(attempt(args, "prefill", tokens, lambda: prefill(tokens)))
        for batch in args.decode:
            rows.append(attempt(args, "decode", batch, lambda: decode(batch)))

    if args.lora:
        model = with_lora(model, args.rank)
        model.train()
        trained = [p for p in model.parameters() if p.requires_grad]
        trainable = sum(p.numel() for p in trained)
        optimizer = torch.optim.AdamW(trained, lr=1e-5)

        def step(tokens):
            ids = draw(1, tokens)

            def work():
                model(input_ids=ids, labels=ids).loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

            return work, tokens

        for tokens in args.lora:
            rows.append(attempt(args, "lora", tokens, lambda: step(tokens)))

    print(json.dumps({
        "peer": {"transformers": transformers.__version__, "peft": peft.__version__, "torch": torch.__version__, "attention": args.attention, "dtype": "bf16",
                 "gradient_checkpointing": True},
        "preset": args.preset, "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu", "rank": args.rank, "trainable_parameters": trainable, "rows": rows,
    }))


if __name__ == "__main__":
    main()
