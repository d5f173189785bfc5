"""LoLCATs as its PyTorch reference computes it, written anew: the student's attention has weights of T x T.

Shapes: B sequences of T tokens, H query heads, d head dimension, f feature width. Functions on plain tensors, so that
torch.compile sees whole layers. README.md lists what this gives the reference beyond what it has.
"""

import math

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

FLOOR = 1e-12


class Teacher:
    """Frozen weights in one type, q, k, v and gate, up each as one matrix."""

    def __init__(self, config, path, dtype):
        weights = {name: value.to(dtype) for name, value in load_file(path).items()}
        self.config = config
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.head_dim = config.get("head_dim") or config["hidden_size"] // self.heads
        self.epsilon = config["rms_norm_eps"]
        self.embedding = weights["model.embed_tokens.weight"]
        self.head = weights.get("lm_head.weight", self.embedding)
        self.norm = weights["model.norm.weight"]
        self.layers = [self.layer(weights, f"model.layers.{i}.") for i in range(config["num_hidden_layers"])]

    @staticmethod
    def layer(weights, prefix):
        def take(*names):
            return torch.cat([weights.pop(f"{prefix}{name}.weight") for name in names])
        return {"norm": take("input_layernorm"),
                "qkv": take("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "o": take("self_attn.o_proj"),
                "mlp_norm": take("post_attention_layernorm"), "gate_up": take("mlp.gate_proj", "mlp.up_proj"),
                "down": take("mlp.down_proj")}

    def rope(self, length):
        """cos and sin [T, d], the halves alike."""
        d = self.head_dim
        angles = self.config["rope_theta"] ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
        angles = torch.arange(length, dtype=torch.float64)[:, None] * angles
        angles = torch.cat([angles, angles], -1)
        return angles.cos().to(self.embedding.dtype), angles.sin().to(self.embedding.dtype)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def split_heads(x, d):
    """[B, T, H d] as [B, H, T, d]."""
    return x.unflatten(-1, (-1, d)).transpose(1, 2)


def merge_heads(x):
    return x.transpose(1, 2).flatten(2)


def low_rank(x, adapter, scale):
    a, b = adapter
    return scale * ((x @ a.T) @ b.T)


def project(layer, x, teacher, cos, sin, adapters=None, scale=1.0):
    """q [B, H, T, d], k and v [B, H_kv, T, d] of the residual stream, q and k rotated."""
    normed = F.rms_norm(x, x.shape[-1:], layer["norm"], teacher.epsilon)
    d = teacher.head_dim
    q, k, v = F.linear(normed, layer["qkv"]).split([teacher.heads * d, teacher.kv_heads * d, teacher.kv_heads * d], -1)
    if adapters is not None:
        q, k, v = (part + low_rank(normed, adapters[name], scale)
                   for part, name in ((q, "q_proj"), (k, "k_proj"), (v, "v_proj")))
    q, k, v = split_heads(q, d), split_heads(k, d), split_heads(v, d)
    return rotate(q, cos, sin), rotate(k, cos, sin), v


def finish(layer, x, y, teacher, adapters=None, scale=1.0):
    """The residual stream that leaves the layer, from its attention's output [B, H, T, d]."""
    y = merge_heads(y)
    middle = x + F.linear(y, layer["o"])
    if adapters is not None:
        middle = middle + low_rank(y, adapters["o_proj"], scale)
    gate, up = F.linear(F.rms_norm(middle, x.shape[-1:], layer["mlp_norm"], teacher.epsilon), layer["gate_up"]).chunk(
        2, -1)
    return middle + F.linear(F.silu(gate) * up, layer["down"])


def teacher_attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def masks(length, window):
    """Near and far keys [T, T] of the terrace: this chunk of `window` keys and the one before, and all earlier ones."""
    n, i = torch.arange(length)[:, None], torch.arange(length)[None, :]
    near = (i <= n) & (n // window - i // window < 2)
    return near, (i <= n) & ~near


def features(x, weight):
    z = torch.einsum("bhtd,hdf->bhtf", x, weight)
    return torch.cat([z.softmax(-1), (-z).softmax(-1)], -1).clamp_min(FLOOR)


def student_attention(q, k, v, q_map, k_map, factors, near, far):
    """[B, H, T, d] by attention weights [B, H, T, T]. The division is that of the output, which has fewer elements."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = (q @ k.transpose(-1, -2)) * (1 / math.sqrt(q.shape[-1]))
    scores = scores.masked_fill(~near, -1e30)
    softmax = torch.sigmoid(factors) * torch.exp(scores - scores.amax(-1, keepdim=True))
    linear = (features(q, q_map) @ features(k, k_map).transpose(-1, -2)).masked_fill(~far, 0)
    weights = softmax + linear
    return (weights @ v) / weights.sum(-1, keepdim=True)


def transfer_loss(layer, x, teacher, rope, maps, mask, factor):
    """A layer's loss, and its teacher's attention output, for gradients of the maps alone."""
    with torch.no_grad():
        q, k, v = project(layer, x, teacher, *rope)
        y = teacher_attention(q, k, v)
    student = student_attention(q, k, v, *maps, *mask)
    return factor * F.mse_loss(student.float(), y.float()), y


def teacher_layer(layer, x, teacher, rope):
    return finish(layer, x, teacher_attention(*project(layer, x, teacher, *rope)), teacher)


def adapted_layer(layer, x, teacher, rope, maps, mask, adapters, scale):
    y = student_attention(*project(layer, x, teacher, *rope, adapters, scale), *maps, *mask)
    return finish(layer, x, y, teacher, adapters, scale)


def head_loss(teacher, x, tokens, reduction="mean"):
    """Next-token cross-entropy."""
    logits = F.linear(F.rms_norm(x, x.shape[-1:], teacher.norm, teacher.epsilon), teacher.head)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction=reduction)
