#!/usr/bin/env python3
"""Writes a random Llama checkpoint of any depth in Hugging Face layout, with tokens to run it on.

The default has the 126 layers of the largest Llama 3.1 model at toy width, to exercise the handling
of deep and sharded checkpoints.  The weights are random but numerically well behaved: every
normalised activation has about unit variance, and the projections that write into the residual
stream are scaled by 1/sqrt(2 layers), so that the stream's variance at most about doubles overall.

The files depend on the arguments only: the numbers come from a counter hash (SplitMix64), not from
a library's generator, and are uniform, so that no library function can change them.
"""

import argparse
import json
import math
import struct
from pathlib import Path

import numpy as np

PAD, BOS, EOS = 0, 1, 2
DTYPES = {"bf16": ("BF16", "bfloat16"), "f32": ("F32", "float32")}
NORM_SPREAD = 0.1   # norm weights lie in 1 +- this, so that leaving them out shows


def hashed(seed, stream, count):
    """count 64-bit integers: SplitMix64 of a counter that starts at a place of its own per stream."""
    with np.errstate(over="ignore"):
        start = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + (np.uint64(stream) << np.uint64(40))
        z = (start + np.arange(1, count + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(seed, stream, shape):
    """float32 values in [-1, 1)."""
    bits = hashed(seed, stream, math.prod(shape)) >> np.uint64(40)
    return (bits.astype(np.float64) / float(1 << 23) - 1.0).astype(np.float32).reshape(shape)


def encode(values, dtype):
    """Little-endian bytes; bfloat16 rounds to nearest even."""
    if dtype == "f32":
        return values.astype("<f4").tobytes()
    bits = values.astype(np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype("<u2").tobytes()


def tensor_specs(a):
    """(name, shape, kind) of every tensor in checkpoint order; kind is 'norm', 'inner', 'residual' or 'embed'."""
    head_dim = a.hidden // a.heads
    queries, keys = a.heads * head_dim, a.kv_heads * head_dim
    specs = [("model.embed_tokens.weight", (a.vocab, a.hidden), "embed")]
    for layer in range(a.layers):
        prefix = f"model.layers.{layer}."
        specs += [
            (prefix + "input_layernorm.weight", (a.hidden,), "norm"),
            (prefix + "self_attn.q_proj.weight", (queries, a.hidden), "inner"),
            (prefix + "self_attn.k_proj.weight", (keys, a.hidden), "inner"),
            (prefix + "self_attn.v_proj.weight", (keys, a.hidden), "inner"),
            (prefix + "self_attn.o_proj.weight", (a.hidden, queries), "residual"),
            (prefix + "post_attention_layernorm.weight", (a.hidden,), "norm"),
            (prefix + "mlp.gate_proj.weight", (a.intermediate, a.hidden), "inner"),
            (prefix + "mlp.up_proj.weight", (a.intermediate, a.hidden), "inner"),
            (prefix + "mlp.down_proj.weight", (a.hidden, a.intermediate), "residual"),
        ]
    return specs + [("model.norm.weight", (a.hidden,), "norm"), ("lm_head.weight", (a.vocab, a.hidden), "inner")]


def make_tensor(a, stream, shape, kind):
    values = uniform(a.seed, stream, shape)
    if kind == "norm":
        return np.float32(1.0) + np.float32(NORM_SPREAD) * values
    deviation = 1.0 if kind == "embed" else 1.0 / math.sqrt(shape[1])
    if kind == "residual":
        deviation /= math.sqrt(2.0 * a.layers)
    return np.float32(deviation * math.sqrt(3.0)) * values  # a uniform value has variance 1/3


def write_safetensors(path, tensors):
    """tensors: list of (name, safetensors dtype, shape, bytes)."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format asks for data aligned to 8 bytes
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)))
        out.write(text)
        for _, _, _, data in tensors:
            out.write(data)


def write_weights(a):
    tensors = []
    for stream, (name, shape, kind) in enumerate(tensor_specs(a)):
        data = encode(make_tensor(a, stream, shape, kind), a.dtype)
        tensors.append((name, DTYPES[a.dtype][0], shape, data))
    if a.shards == 1:
        write_safetensors(a.out / "model.safetensors", tensors)
        return
    total = sum(len(data) for _, _, _, data in tensors)
    shards, done = [[] for _ in range(a.shards)], 0
    for tensor in tensors:  # consecutive tensors, about equal bytes per shard
        shards[min(a.shards - 1, done * a.shards // total)].append(tensor)
        done += len(tensor[3])
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file_name = f"model-{number:05d}-of-{a.shards:05d}.safetensors"
        write_safetensors(a.out / file_name, shard)
        weight_map.update((name, file_name) for name, _, _, _ in shard)
    write_json(a.out / "model.safetensors.index.json",
               {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_config(a):
    write_json(a.out / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": DTYPES[a.dtype][1],
        "vocab_size": a.vocab, "hidden_size": a.hidden, "intermediate_size": a.intermediate,
        "num_hidden_layers": a.layers, "num_attention_heads": a.heads, "num_key_value_heads": a.kv_heads,
        "head_dim": a.hidden // a.heads, "max_position_embeddings": 2048, "rope_theta": 10000.0,
        "rope_scaling": None, "rms_norm_eps": 1e-5, "hidden_act": "silu", "attention_bias": False,
        "mlp_bias": False, "tie_word_embeddings": False, "initializer_range": 0.02, "use_cache": True,
        "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD})


def write_tokens(a):
    import h5py
    stream = len(tensor_specs(a))
    draws = hashed(a.seed, stream, a.sequences * a.length).reshape(a.sequences, a.length)
    special = EOS + 1
    tokens = (draws % np.uint64(a.vocab - special)).astype(np.int32) + np.int32(special)
    tokens[:, 0] = BOS
    with h5py.File(a.out / "tokens.h5", "w") as out:
        out.create_dataset("tokens", data=tokens)
        out.create_dataset("labels", data=tokens)


def parse_arguments():
    parser = argparse.ArgumentParser(description="Write a random, deep, narrow Llama checkpoint and tokens for it.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory to create")
    for name, default in (("layers", 126), ("hidden", 32), ("heads", 2), ("kv-heads", 1), ("intermediate", 48),
                          ("vocab", 256), ("shards", 1), ("seed", 0), ("sequences", 4), ("length", 96)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=name.replace("-", " "))
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bf16", help="stored type")
    a = parser.parse_args()
    if min(a.layers, a.hidden, a.heads, a.kv_heads, a.intermediate, a.shards, a.sequences, a.length) < 1:
        parser.error("sizes must be positive")
    if a.seed < 0 or a.vocab <= EOS + 1:
        parser.error("--seed must not be negative and --vocab must exceed the special tokens")
    if a.hidden % (2 * a.heads) or a.heads % a.kv_heads:
        parser.error("--hidden must be an even multiple of --heads, and --heads a multiple of --kv-heads")
    if a.shards > len(tensor_specs(a)):
        parser.error("more shards than tensors")
    return a


def main():
    a = parse_arguments()
    a.out.mkdir(parents=True, exist_ok=True)
    for old in list(a.out.glob("model*.safetensors")) + list(a.out.glob("model.safetensors.index.json")):
        old.unlink()  # a stale shard or index next to new ones would be a different model
    write_config(a)
    write_weights(a)
    write_tokens(a)


if __name__ == "__main__":
    main()
