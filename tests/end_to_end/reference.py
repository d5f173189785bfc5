"""The method in float64 numpy, written for clarity: explicit near and far sets, every weight of T x T attention.

It shares nothing with the programs. Shapes: B sequences of T tokens, H query heads, d head dimension, f feature width.
Also writes random checkpoints in every form the programs read.
"""

import json
import struct
from pathlib import Path

import numpy as np

FLOOR = 1e-12
STORED = {"f32": ("F32", "float32"), "f16": ("F16", "float16"), "bf16": ("BF16", "bfloat16")}


# --- Checkpoints --------------------------------------------------------------------------------------------------

def to_bf16_bits(values):
    """Rounds float32 to the nearest bfloat16, ties to even."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2")


def round_to_bf16(values):
    return (to_bf16_bits(values).astype(np.uint32) << np.uint32(16)).view(np.float32)


def round_to_float8(values):
    """Rows of E4M3 numbers (4 bits of exponent, 3 of fraction) whose scale makes the largest magnitude 448."""
    normal = [(8 + fraction) * 2.0**(exponent - 10) for exponent in range(1, 16) for fraction in range(8)]
    grid = np.array([fraction * 2.0**-9 for fraction in range(8)] + normal[:-1])  # the last code is NaN
    scales = np.abs(values).max(axis=1, keepdims=True) / grid[-1]
    nearest = np.searchsorted((grid[1:] + grid[:-1]) / 2, np.abs(values) / scales)
    return np.sign(values) * grid[nearest] * scales


def stored_values(values, dtype):
    """What a reader gets back from a file of this type, in float64."""
    values = np.asarray(values, np.float32)
    if dtype == "bf16":
        values = round_to_bf16(values)
    return values.astype(np.float16 if dtype == "f16" else np.float32).astype(np.float64)


def encode(values, dtype):
    if dtype == "bf16":
        return to_bf16_bits(values).tobytes()
    return np.asarray(values).astype("<f2" if dtype == "f16" else "<f4").tobytes()


def write_safetensors(path, arrays, dtype="f32", metadata=None):
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, values in arrays.items():
        part = encode(values, dtype)
        header[name] = {"dtype": STORED[dtype][0], "shape": list(np.shape(values)),
                        "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_weights(directory, weights, dtype, shards):
    """One file, or `shards` files that each hold every so-many-th tensor, with their index."""
    if shards == 1:
        return write_safetensors(directory / "model.safetensors", weights, dtype)
    index = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {key: weights[key] for key in list(weights)[shard::shards]}
        write_safetensors(directory / name, part, dtype)
        index.update(dict.fromkeys(part, name))
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def weight_shapes(config):
    """{name: shape} of a checkpoint."""
    width, inner, d = config["hidden_size"], config["intermediate_size"], head_dim(config)
    queries, keys = config["num_attention_heads"] * d, config["num_key_value_heads"] * d
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        linear = {"self_attn.q_proj": (queries, width), "self_attn.k_proj": (keys, width),
                  "self_attn.v_proj": (keys, width), "self_attn.o_proj": (width, queries),
                  "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner)}
        prefix = f"model.layers.{layer}."
        for name, shape in linear.items():
            shapes[f"{prefix}{name}.weight"] = shape
            if config.get("attention_bias" if name.startswith("self_attn") else "mlp_bias"):
                shapes[f"{prefix}{name}.bias"] = shape[:1]
        shapes[prefix + "input_layernorm.weight"] = (width,)
        shapes[prefix + "post_attention_layernorm.weight"] = (width,)
    shapes["model.norm.weight"] = (width,)
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    return shapes


def random_weights(config, rng, scale=1.5):
    """Scores and states of order one, so that a wrong term shows."""
    weights = {}
    for name, shape in weight_shapes(config).items():
        values = rng.standard_normal(shape)
        if name.endswith("norm.weight"):
            values = 1 + 0.2 * values
        elif name.endswith(".bias"):
            values = 0.3 * values
        elif name != "model.embed_tokens.weight":
            values *= scale / np.sqrt(shape[1])
        weights[name] = values.astype(np.float32)
    return weights


def make_model(directory, config, rng, dtype="f32", shards=1):
    """Writes a random Hugging Face directory and returns the model as its files hold it."""
    directory = Path(directory)
    directory.mkdir()
    config = {"torch_dtype": STORED[dtype][1], **config}
    (directory / "config.json").write_text(json.dumps(config))
    weights = random_weights(config, rng)
    write_weights(directory, weights, dtype, shards)
    return Model(config, {name: stored_values(values, dtype) for name, values in weights.items()})


class Model:
    """A configuration as in config.json, and weights in float64 by name."""

    def __init__(self, config, weights):
        self.config = config
        self.weights = weights

    def linear(self, name, x):
        y = x @ self.weights[name + ".weight"].T
        return y + self.weights[name + ".bias"] if name + ".bias" in self.weights else y

class Float8Model(Model):
    """Weights of the decoder layers in 8 bits, by outputs, embedding and head in bf16; with `activations` what the
    layers' weights are multiplied with is in 8 bits, too, by tokens."""

    def __init__(self, model, activations):
        super().__init__(model.config, {name: self.kept(name, values) for name, values in model.weights.items()})
        self.activations = activations

    @staticmethod
    def kept(name, values):
        if "_proj.weight" in name:
            return round_to_float8(values)
        return round_to_bf16(values).astype(np.float64) if "embed" in name or "head" in name else values

    def linear(self, name, x):
        if self.activations and "_proj" in name:
            x = round_to_float8(x.reshape(-1, x.shape[-1])).reshape(x.shape)
        return super().linear(name, x)


# --- The teacher --------------------------------------------------------------------------------------------------

def head_dim(config):
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def rope_frequencies(config):
    """[d/2] angles a position."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = rope.get("rope_theta") or config.get("rope_theta") or 10000.0
    d = head_dim(config)
    angles = base**(-2.0 * np.arange(d // 2) / d)
    if rope.get("rope_type", rope.get("type", "default")) == "default":
        return angles
    scaled = []
    for angle in angles:
        length, original = 2 * np.pi / angle, rope["original_max_position_embeddings"]
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        share = (original / length - low) / (high - low)
        if length < original / high:
            share = 1.0
        elif length > original / low:
            share = 0.0
        scaled.append((1 - share) * angle / rope["factor"] + share * angle)
    return np.array(scaled)


def rotate(x, frequencies):
    """x: [B, H, T, d]; dimension i turns with i + d/2."""
    angles = np.arange(x.shape[2])[:, None] * frequencies
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], -1)


def rms_norm(x, weight, epsilon):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * weight


def silu(x):
    return x / (1 + np.exp(-x))


def heads(x, d):
    """[B, T, H d] as [B, H, T, d]."""
    return x.reshape(*x.shape[:2], -1, d).transpose(0, 2, 1, 3)


def scores(q, k):
    return q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])


def teacher_weights(q, k):
    """[B, H, T, T] softmax over keys up to the query."""
    s = np.where(np.tri(q.shape[2], dtype=bool), scores(q, k), -np.inf)
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# --- The student --------------------------------------------------------------------------------------------------

class Form:
    """What all layers' students have in common."""

    def __init__(self, kind, window, feature_map="hedgehog", feature_dim=None, affine=False):
        self.kind, self.window, self.map, self.feature_dim, self.affine = kind, window, feature_map, feature_dim, affine


def near_and_far(kind, length, window):
    """Two [T, T] masks: which keys a query sees by softmax and which by linear attention."""
    n, i = np.arange(length)[:, None], np.arange(length)[None, :]
    if kind == "terrace":
        near = i // window >= n // window - 1
    elif kind == "sliding":
        near = i > n - window
    else:
        near = np.zeros((length, length), bool)
    return near & (i <= n), ~near & (i <= n)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def feature_map(name, x, weights, bias):
    """x: [B, H, T, d], weights: [H, d, f], bias: [1, H, 1, 1] or 0."""
    z = x @ weights + bias
    if name == "hedgehog":
        phi = np.concatenate([softmax(z), softmax(-z)], -1)
    elif name == "hedgehog_half":
        phi = softmax(z)
    elif name == "t2r":
        phi = np.maximum(z, 0)
    elif name == "exp_dim":
        phi = np.concatenate([np.exp(z - z.max(-1, keepdims=True)), np.exp(-z + z.min(-1, keepdims=True))], -1)
    elif name == "exp_dim_half":
        phi = np.exp(z - z.max(-1, keepdims=True))
    elif name == "dpfp":
        parts = np.maximum(np.concatenate([z, -z], -1), 0)
        phi = parts * np.roll(parts, 1, -1)
    elif name == "pos_elu":
        phi = np.where(z > 0, 1 + z, np.exp(np.minimum(z, 0)))
    else:
        raise ValueError(name)
    return np.maximum(phi, FLOOR)


def student_name(layer, what):
    return f"model.layers.{layer}.self_attn.{what}"


def student_weights(form, maps, layer, q, k):
    """[B, H, T, T] normalised weights; maps: {name: array} as in the feature-map files."""
    def get(what, missing=0.0):
        return np.asarray(maps.get(student_name(layer, what), missing), np.float64)

    phi_q = feature_map(form.map, q, get("feature_map_q.mlp.layer"), get("feature_map_q.mlp.bias"))
    phi_k = feature_map(form.map, k, get("feature_map_k.mlp.layer"), get("feature_map_k.mlp.bias"))
    near, far = near_and_far(form.kind, q.shape[2], form.window)
    linear = np.where(far, phi_q @ phi_k.swapaxes(-1, -2), 0)
    if form.kind == "none":
        return linear / (linear.sum(-1, keepdims=True) + FLOOR)
    gamma = 1 / (1 + np.exp(-get("window_factors")))
    s = np.where(near, scores(q, k), -np.inf)
    e = gamma * np.exp(s - s.max(-1, keepdims=True))
    weights = e + (1 - gamma if form.affine else 1.0) * linear
    return weights / weights.sum(-1, keepdims=True)


def random_maps(config, form, rng, scale=1.0):
    """Parameters of all students, as float32."""
    count, d = config["num_attention_heads"], head_dim(config)
    f = form.feature_dim or (d if form.map == "t2r" else d // 2)
    maps = {}
    for layer in range(config["num_hidden_layers"]):
        for side in "qk":
            values = rng.standard_normal((count, d, f)) * scale / np.sqrt(d)
            maps[student_name(layer, f"feature_map_{side}.mlp.layer")] = values.astype(np.float32)
            if form.map == "t2r":
                bias = 0.3 * rng.standard_normal((1, count, 1, 1))
                maps[student_name(layer, f"feature_map_{side}.mlp.bias")] = bias.astype(np.float32)
        if form.kind != "none":
            factors = rng.standard_normal((1, count, 1, 1)) - 1
            maps[student_name(layer, "window_factors")] = factors.astype(np.float32)
    return maps


# --- The whole model ----------------------------------------------------------------------------------------------

class Adapter:
    """LoRA: arrays by their PEFT names, and alpha / r."""

    def __init__(self, arrays, scale):
        self.arrays, self.scale = arrays, scale

    def update(self, layer, projection, x):
        stem = f"base_model.model.model.layers.{layer}.self_attn.{projection}."
        if stem + "lora_A.weight" not in self.arrays:
            return 0.0
        a, b = (np.asarray(self.arrays[f"{stem}lora_{side}.weight"], np.float64) for side in "AB")
        return self.scale * (x @ a.T @ b.T)


def run_layer(model, layer, x, form=None, maps=None, adapter=None):
    """Returns the residual stream after the layer, and q, k, v [B, H, T, d] as attention sees them."""
    config, prefix = model.config, f"model.layers.{layer}."
    epsilon, d = config.get("rms_norm_eps", 1e-6), head_dim(config)

    def project(name, y):
        update = adapter.update(layer, name, y) if adapter else 0.0
        return model.linear(f"{prefix}self_attn.{name}", y) + update

    y = rms_norm(x, model.weights[prefix + "input_layernorm.weight"], epsilon)
    q, k, v = (heads(project(name, y), d) for name in ("q_proj", "k_proj", "v_proj"))
    group = config["num_attention_heads"] // config["num_key_value_heads"]
    q, k = (rotate(z, rope_frequencies(config)) for z in (q, k))
    k, v = (np.repeat(z, group, axis=1) for z in (k, v))
    weights = student_weights(form, maps, layer, q, k) if form else teacher_weights(q, k)
    y = (weights @ v).transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1)
    x = x + project("o_proj", y)
    y = rms_norm(x, model.weights[prefix + "post_attention_layernorm.weight"], epsilon)
    y = silu(model.linear(prefix + "mlp.gate_proj", y)) * model.linear(prefix + "mlp.up_proj", y)
    return x + model.linear(prefix + "mlp.down_proj", y), (q, k, v)


def logits(model, tokens, form=None, maps=None, adapter=None):
    """[B, T, V]; without a form those of the teacher."""
    x = model.weights["model.embed_tokens.weight"][tokens]
    for layer in range(model.config["num_hidden_layers"]):
        x, _ = run_layer(model, layer, x, form, maps, adapter)
    x = rms_norm(x, model.weights["model.norm.weight"], model.config.get("rms_norm_eps", 1e-6))
    head = "model.embed_tokens" if model.config.get("tie_word_embeddings") else "lm_head"
    return model.linear(head, x)


def next_token_loss(values, labels):
    """Mean over labelled tokens (not -100) of -log p of the token after each position."""
    top = values.max(-1, keepdims=True)
    log_p = values - top - np.log(np.exp(values - top).sum(-1, keepdims=True))
    targets, log_p = labels[:, 1:], log_p[:, :-1]
    counted = targets != -100
    chosen = np.take_along_axis(log_p, np.where(counted, targets, 0)[..., None], -1)[..., 0]
    return -chosen[counted].mean()


def attention_inputs(model, tokens):
    """q, k, v of every layer of the teacher."""
    x, inputs = model.weights["model.embed_tokens.weight"][tokens], []
    for layer in range(model.config["num_hidden_layers"]):
        x, qkv = run_layer(model, layer, x)
        inputs.append(qkv)
    return inputs


def transfer_loss(form, maps, layer, qkv, mse_factor=1000.0, xent_factor=0.0):
    """The loss of attention transfer of one layer."""
    q, k, v = qkv
    teacher, student = teacher_weights(q, k), student_weights(form, maps, layer, q, k)
    loss = mse_factor * ((student @ v - teacher @ v)**2).mean()
    return loss - xent_factor * (teacher * np.log(np.maximum(student, FLOOR))).sum(-1).mean()


def difference_quotient(loss, arrays, name, index, step=1e-5):
    """The derivative of loss(arrays) by one element, by central differences of third order error."""
    values = []
    for sign in (1, -1):
        changed = np.array(arrays[name], np.float64)
        changed[index] += sign * step
        values.append(loss({**arrays, name: changed}))
    return (values[0] - values[1]) / (2 * step)
