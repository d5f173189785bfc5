#!/usr/bin/env python3
"""Trains the tiny teacher on sequences of make_corpus.py and saves it in Hugging Face layout.

Needs PyTorch and transformers; nothing else in the project does.  One run of this script with
its default arguments made tests/data/tiny/model.
"""

import argparse
import math
import random
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parent))
from make_corpus import BOS, EOS, MIN_DISTANCE, PAD, VOCAB, Corpus  # noqa: E402

TRAIN_SEED, HELD_OUT_SEED = 1000, 2000      # corpora of different seeds share no sequence
TOKENS_PER_STEP = 8192
ANSWER_WEIGHT = 1.0                         # answers are 4 % of the tokens, so they get a loss term of their own
PEAK_RATE, FINAL_RATE, WARM_UP = 2e-3, 2e-5, 100

# (share of the steps, [(length, smallest distance), ...]).  The look-up circuit forms in short
# sequences dense with questions; afterwards it only has to be stretched to long distances.
STAGES = [
    (0.25, [(64, 0), (96, 16)]),
    (0.15, [(96, 16), (128, 32), (192, MIN_DISTANCE), (256, MIN_DISTANCE)]),
    (0.60, [(256, MIN_DISTANCE), (256, MIN_DISTANCE), (256, MIN_DISTANCE), (128, 32), (512, MIN_DISTANCE)]),
]


def make_model():
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=128, intermediate_size=320, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
        rope_theta=10000.0, rms_norm_eps=1e-5, tie_word_embeddings=False,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, use_cache=False))


def tensors(corpus, seed, first, count):
    """Tokens [count, T] and a mask of the answer tokens."""
    rows = [corpus.sequence(seed, first + i) for i in range(count)]
    tokens = torch.tensor([row[0] for row in rows])
    is_answer = torch.zeros_like(tokens, dtype=torch.bool)
    for i, (_, answers, _) in enumerate(rows):
        for position in answers:
            is_answer[i, position:position + 2] = True
    return tokens, is_answer


def token_losses(model, tokens):
    """Cross entropy of tokens 1.. and whether the argmax was right."""
    logits = model(tokens).logits[:, :-1].float()
    losses = F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    return losses, logits.argmax(-1) == tokens[:, 1:]


def stage_at(progress):
    for share, shapes in STAGES:
        if progress < share:
            return shapes
        progress -= share
    return STAGES[-1][1]


def rate_at(step, steps):
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    progress = (step - WARM_UP) / max(1, steps - WARM_UP)
    return FINAL_RATE + (PEAK_RATE - FINAL_RATE) * 0.5 * (1.0 + math.cos(math.pi * progress))


def make_optimizer(model):
    """AdamW that decays matrices but not the norm weights."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98))


def train(model, steps, log_every):
    optimizer = make_optimizer(model)
    rng = random.Random(TRAIN_SEED)
    corpora = {shape: Corpus(*shape) for _, shapes in STAGES for shape in shapes}
    drawn, start = 0, time.time()
    for step in range(steps):
        shapes = stage_at(step / steps)
        shape = shapes[int(rng.random() * len(shapes))]
        batch = TOKENS_PER_STEP // shape[0]
        tokens, is_answer = tensors(corpora[shape], TRAIN_SEED, drawn, batch)
        drawn += batch
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps)
        losses, right = token_losses(model, tokens)
        is_answer = is_answer[:, 1:]
        loss = losses.mean() + ANSWER_WEIGHT * losses[is_answer].mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % log_every == 0 or step + 1 == steps:
            print(f"step {step:5d}  T {shape[0]:3d}  loss {losses.mean():.4f}  answers {losses[is_answer].mean():.4f}  "
                  f"right {right[is_answer].float().mean():.3f}  {time.time() - start:.0f} s", flush=True)


@torch.no_grad()
def evaluate(model, length, sequences=512, batch=32):
    """Exact match of the two-token answers and perplexities on held-out sequences."""
    model.eval()
    corpus = Corpus(length)
    total = {"all": [0.0, 0], "answers": [0.0, 0], "filler": [0.0, 0]}
    matched = asked = 0
    floor = 0.0
    for first in range(0, sequences, batch):
        tokens, is_answer = tensors(corpus, HELD_OUT_SEED, first, batch)
        costs = [corpus.sequence(HELD_OUT_SEED, first + i)[2] for i in range(batch)]
        is_filler = torch.tensor([[cost is not None for cost in row] for row in costs])[:, 1:]
        floor += sum(cost for row in costs for cost in row if cost is not None)
        losses, right = token_losses(model, tokens)
        is_answer = is_answer[:, 1:]
        for name, mask in (("all", torch.ones_like(is_answer)), ("answers", is_answer), ("filler", is_filler)):
            total[name][0] += losses[mask].sum().item()
            total[name][1] += int(mask.sum())
        pairs = right[is_answer].view(-1, 2).all(-1)
        matched += int(pairs.sum())
        asked += len(pairs)
    perplexity = {name: math.exp(loss / count) for name, (loss, count) in total.items()}
    print(f"held out, T {length}: exact match {matched}/{asked} = {matched / asked:.4f}; perplexity "
          f"all {perplexity['all']:.4f}, answers {perplexity['answers']:.4f}, filler {perplexity['filler']:.4f} "
          f"(of the true language {math.exp(floor / total['filler'][1]):.4f})", flush=True)


def main():
    repository = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description="Train the tiny teacher and save it in Hugging Face layout.")
    parser.add_argument("--out", type=Path, default=repository / "tests/data/tiny/model", metavar="DIR")
    parser.add_argument("--steps", type=int, default=2000, help="optimiser steps (default 2000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the initial weights (default 1)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--log-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--evaluate-only", action="store_true", help="only measure the model in --out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    if not arguments.evaluate_only:
        model = make_model()
        train(model, arguments.steps, arguments.log_every)
        model.to(torch.bfloat16).save_pretrained(arguments.out)
    # Measured as saved, that is after rounding to bfloat16, but computed in float32.
    model = LlamaForCausalLM.from_pretrained(arguments.out, torch_dtype=torch.float32)
    print(f"{sum(p.numel() for p in model.parameters())} parameters")
    for length in (128, 256, 512):
        evaluate(model, length)


if __name__ == "__main__":
    main()
