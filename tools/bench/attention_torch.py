#!/usr/bin/env python3
"""Times softmax attention (scaled_dot_product_attention) and the student in the reference's T x T form with PyTorch, for
sequences of 1k to 64k tokens: what attention_cuda's figures stand beside.

    attention_torch.py [--heads 32] [--kv-heads 8] [--head-dim 128] [--shortest 1024] [--longest 65536]
"""
import argparse
import time

import torch
import torch.nn.functional as F


def timed(device, body, repeats):
    """Mean seconds of a call after one that does not count."""
    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize()
    body()
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        body()
    wait()
    return (time.perf_counter() - start) / repeats


def terrace(length, window, device):
    """Masks of near and far keys [T, T]: this chunk and the one before, and all earlier ones."""
    position = torch.arange(length, device=device)
    causal = position[:, None] >= position[None, :]
    near = causal & (position[:, None] // window - position[None, :] // window < 2)
    return near, causal & ~near


def student(q, k, v, q_map, k_map, gamma, window):
    """The student as the reference computes it, weights of T x T and all. q, k, v: [1, H, T, d], maps [H, d, f]."""
    def features(x, weight):
        z = torch.einsum("bhtd,hdf->bhtf", x, weight)
        return torch.cat([z.softmax(-1), (-z).softmax(-1)], -1)
    near, far = terrace(q.shape[2], window, q.device)
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1]**-0.5
    scores = scores.masked_fill(~near, -1e9)
    softmax = gamma * torch.exp(scores - scores.amax(-1, keepdim=True)) * near
    linear = (features(q, q_map) @ features(k, k_map).transpose(-1, -2)) * far
    weights = softmax + linear
    return (weights @ v) / weights.sum(-1, keepdim=True)


def report(name, length, body, device, repeats):
    try:
        seconds = timed(device, body, repeats)
        print(f"{name:<34} T {length:6}  {seconds * 1e3:9.3f} ms  {length / seconds * 1e-3:8.1f} ktoken/s", flush=True)
    except torch.cuda.OutOfMemoryError:
        print(f"{name:<34} T {length:6}  does not fit in memory", flush=True)
        torch.cuda.empty_cache()


def measure(length, options, device):
    kind = {"device": device, "dtype": torch.bfloat16}
    heads, d, f = options.heads, options.head_dim, options.head_dim // 2
    q = torch.randn(1, heads, length, d, **kind, requires_grad=True)
    k, v = (torch.randn(1, options.kv_heads, length, d, **kind, requires_grad=True) for _ in range(2))
    dy = torch.randn(1, heads, length, d, **kind)
    q_map, k_map = (torch.randn(heads, d, f, **kind).mul_(0.1).requires_grad_() for _ in range(2))
    gamma = torch.full((heads, 1, 1), 0.1, **kind, requires_grad=True)

    def wide(x):
        return x.repeat_interleave(heads // options.kv_heads, 1)

    grouped = {"enable_gqa": True} if heads != options.kv_heads else {}

    def softmax():
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, **grouped)

    def terrace_student():
        return student(q, wide(k), wide(v), q_map, k_map, gamma, options.window)

    for name, forward in (("sdpa", softmax), ("student, T x T", terrace_student)):
        def forward_only(forward=forward):
            with torch.no_grad():
                forward()
        report(f"{name}, forward", length, forward_only, device, options.repeats)
        report(f"{name}, forward + backward", length, lambda forward=forward: forward().backward(dy), device,
               options.repeats)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("heads", 32), ("kv-heads", 8), ("head-dim", 128), ("window", 64), ("shortest", 1024),
                        ("longest", 65536), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name() if device.type == 'cuda' else 'the CPU'}, "
          f"H {options.heads}, H_kv {options.kv_heads}, d {options.head_dim}, w {options.window}, bf16")
    length = options.shortest
    while length <= options.longest:
        measure(length, options, device)
        length *= 2


if __name__ == "__main__":
    main()
