#!/usr/bin/env python3
"""The shapes that are compared, and the files both sides read: a random teacher, tokens, untrained maps, an adapter.

    shapes.py DIRECTORY SHAPE...        writes them
"""

import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

TINY = Path(__file__).resolve().parents[2] / "tests" / "data" / "tiny" / "model"
TASKS = ("teacher", "transfer", "lora")
RANK, ALPHA = 8, 16
SEED = 5


@dataclass
class Shape:
    """A model, its sequences, and the optimiser step. `layer`: one decoder layer alone is timed, all of it, without
    embedding and head; else the whole model is, as the programs run it."""
    name: str
    length: int
    window: int
    feature_dim: int
    batch: int                  # sequences in an optimiser step
    micro_batch: int            # sequences computed at once
    steps: dict                 # {task: timed steps in a round}
    config: dict = field(default_factory=dict)
    layer: bool = False
    pretrained: Path = None     # a teacher that exists, in place of a random one

    @property
    def tokens(self):
        """Of an optimiser step."""
        return self.batch * self.length


def llama(width, inner, layers, heads, kv_heads, head_dim, vocabulary=1024):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": width,
            "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "head_dim": head_dim, "vocab_size": vocabulary, "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0, "tie_word_embeddings": False, "max_position_embeddings": 1 << 17,
            "torch_dtype": "bfloat16"}


LLAMA_1B_LAYER = llama(2048, 8192, 1, 32, 8, 64)
SHAPES = {shape.name: shape for shape in (
    Shape("tiny", 256, 16, 32, 8, 8, {"teacher": 16, "transfer": 12, "lora": 8}, pretrained=TINY),
    Shape("d512", 1024, 64, 32, 4, 1, {"teacher": 4, "transfer": 2, "lora": 1}, llama(512, 1408, 8, 8, 4, 64)),
    Shape("layer-1b-1k", 1024, 64, 32, 1, 1, {"teacher": 6, "transfer": 4, "lora": 2}, LLAMA_1B_LAYER, layer=True),
    Shape("layer-1b-4k", 4096, 64, 32, 1, 1, {"teacher": 2, "transfer": 1, "lora": 1}, LLAMA_1B_LAYER, layer=True),
    Shape("block-1b-1k", 1024, 64, 32, 1, 1, {"teacher": 6, "transfer": 6, "lora": 2}, LLAMA_1B_LAYER),
    Shape("block-1b-4k", 4096, 64, 32, 1, 1, {"teacher": 2, "transfer": 2, "lora": 1}, LLAMA_1B_LAYER),
    # for tests of this tool
    Shape("toy", 96, 16, 8, 2, 1, {"teacher": 2, "transfer": 2, "lora": 2}, llama(32, 48, 2, 4, 2, 16, 64)),
    Shape("toy-layer", 96, 16, 8, 2, 1, {"teacher": 2, "transfer": 2, "lora": 2}, llama(32, 48, 1, 4, 2, 16, 64),
          layer=True),
)}
COMPARED = ("tiny", "d512", "layer-1b-1k", "layer-1b-4k", "block-1b-1k", "block-1b-4k")


class Files:
    """Where a shape's files are, written once."""

    def __init__(self, shape, directory):
        self.shape, self.directory = shape, Path(directory) / shape.name
        self.model = shape.pretrained or self.directory / "model"
        self.tokens = self.directory / "tokens.h5"
        self.many_tokens = self.directory / "many_tokens.h5"    # for a round of the teacher
        self.maps = self.directory / "maps.safetensors"
        self.adapter = self.directory / "adapter"

    @property
    def config(self):
        return json.loads((self.model / "config.json").read_text(encoding="utf-8"))

    def write(self):
        import torch
        generator = torch.Generator().manual_seed(SEED)
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.shape.pretrained:
            self.model.mkdir(exist_ok=True)
            (self.model / "config.json").write_text(json.dumps(self.shape.config))
            write_weights(self.config, self.model / "model.safetensors", generator)
        write_tokens(self.config, self.shape, self.tokens, self.many_tokens, generator)
        write_maps(self.config, self.shape, self.maps, generator)
        write_adapter(self.config, self.adapter, generator)
        return self


def head_dim(config):
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def projections(config):
    """{name: (outputs, inputs)} of the attention's."""
    width, d = config["hidden_size"], head_dim(config)
    queries, keys = config["num_attention_heads"] * d, config["num_key_value_heads"] * d
    return {"q_proj": (queries, width), "k_proj": (keys, width), "v_proj": (keys, width), "o_proj": (width, queries)}


def write_weights(config, path, generator):
    """Scores and states of order one."""
    import torch
    from safetensors.torch import save_file
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {"model.embed_tokens": (config["vocab_size"], width), "lm_head": (config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes.update({f"{prefix}self_attn.{name}": shape for name, shape in projections(config).items()})
        shapes.update({f"{prefix}mlp.{name}": shape for name, shape in (
            ("gate_proj", (inner, width)), ("up_proj", (inner, width)), ("down_proj", (width, inner)))})
        shapes.update({f"{prefix}{name}": (width,) for name in ("input_layernorm", "post_attention_layernorm")})
    shapes["model.norm"] = (width,)
    weights = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            values = 1 + 0.1 * values
        elif name != "model.embed_tokens":
            values /= math.sqrt(shape[1])
        weights[name + ".weight"] = values.bfloat16()
    save_file(weights, path)


def write_tokens(config, shape, path, many, generator):
    """As many sequences as a step takes, so that every step of any order sees all of them; and a round of those."""
    import h5py
    import torch
    tokens = torch.randint(3, config["vocab_size"], (shape.batch, shape.length), generator=generator).int()
    for name, repeats in ((path, 1), (many, shape.steps["teacher"])):
        with h5py.File(name, "w") as file:
            file["tokens"] = tokens.repeat(repeats, 1).numpy()


def write_maps(config, shape, path, generator):
    import torch
    from safetensors.torch import save_file
    heads, d, f = config["num_attention_heads"], head_dim(config), shape.feature_dim
    bound = math.sqrt(6 / (d * f))
    arrays = {}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}.self_attn."
        for which in "qk":
            arrays[f"{prefix}feature_map_{which}.mlp.layer"] = (
                bound * (2 * torch.rand(heads, d, f, generator=generator) - 1))
        arrays[f"{prefix}window_factors"] = torch.full((1, heads, 1, 1), -2.1972245773362196)
    save_file(arrays, path, metadata={"attention": "terrace", "window": str(shape.window), "feature-map": "hedgehog",
                                      "affine-attention-factors": "false"})


def write_adapter(config, directory, generator):
    """In PEFT's layout. B is not zero, so that all of the adapter has a gradient at the first step."""
    import torch
    from safetensors.torch import save_file
    directory.mkdir(exist_ok=True)
    arrays = {}
    for layer in range(config["num_hidden_layers"]):
        for name, (outputs, inputs) in projections(config).items():
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}.lora_"
            arrays[prefix + "A.weight"] = torch.randn(RANK, inputs, generator=generator) / math.sqrt(inputs)
            arrays[prefix + "B.weight"] = 0.02 * torch.randn(outputs, RANK, generator=generator)
    save_file(arrays, directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0,
        "bias": "none", "target_modules": list(projections(config))}))


if __name__ == "__main__":
    for shape_name in sys.argv[2:]:
        Files(SHAPES[shape_name], sys.argv[1]).write()
