"""A Hugging Face directory of the linearised model: configuration, code, weights, tokenizer."""

import shutil
from pathlib import Path

from json_numbers import is_count
from low_rank import projection_shapes
from tensor_files import FLOATS, copied, write_checkpoint
from tool_error import ToolError
from whole_output import read_json, write_json

CODE = Path(__file__).resolve().parent / "huggingface"
CODE_FILES = ("configuration_lolcats.py", "modeling_lolcats.py")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
                   "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json")
# Of the teacher alone: its attention, and how its own code or files were made.
DROPPED_KEYS = ("architectures", "auto_map", "layer_types", "model_type", "sliding_window", "torch_dtype", "dtype",
                "transformers_version", "_name_or_path", "use_cache")
LONG_NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def read_config(directory):
    """The teacher's config.json, with what it leaves to defaults filled in."""
    path = Path(directory) / "config.json"
    config = read_json(path, "give the Hugging Face directory of the teacher")
    if config.get("model_type") not in ("llama", "mistral"):
        raise ToolError(f"{path}: model_type is {config.get('model_type')!r}: only llama and mistral can be linearised")
    for key in ("quantization_config", "auto_map"):
        if config.get(key):
            raise ToolError(f"{path}: has {key}: give the plain, unquantised model that was converted")
    check_counts(path, config, ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                                "vocab_size"))
    filled = {"head_dim": config["hidden_size"] // config["num_attention_heads"],
              "num_key_value_heads": config["num_attention_heads"], "rms_norm_eps": 1e-6, "attention_bias": False,
              "mlp_bias": False, "tie_word_embeddings": False}
    config |= {key: value for key, value in filled.items() if config.get(key) is None}
    check_counts(path, config, ("head_dim", "num_key_value_heads"))
    return config


def check_counts(path, config, keys):
    for key in keys:
        if not is_count(config.get(key)):
            raise ToolError(f"{path}: {key} is {config.get(key)!r}, not a number of at least 1; fetch it again")


def linear_config(config, form, dtype):
    """config.json of the linearised model."""
    kept = {key: value for key, value in config.items() if key not in DROPPED_KEYS}
    return {"architectures": ["LolcatsForCausalLM"],
            "auto_map": {"AutoConfig": "configuration_lolcats.LolcatsConfig",
                         "AutoModel": "modeling_lolcats.LolcatsModel",
                         "AutoModelForCausalLM": "modeling_lolcats.LolcatsForCausalLM"},
            "model_type": "lolcats", **kept, **form, "dtype": LONG_NAMES[dtype], "use_cache": True}


def weight_shapes(config):
    """{name: shape} of the teacher's tensors, in the order they are written."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    attention = projection_shapes(config)
    mlp = {"gate_proj": (inner, width), "up_proj": (inner, width), "down_proj": (width, inner)}
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        for part, linear, has_bias in (("self_attn", attention, config["attention_bias"]),
                                       ("mlp", mlp, config["mlp_bias"])):
            for module, shape in linear.items():
                name = f"model.layers.{layer}.{part}.{module}"
                shapes[name + ".weight"] = shape
                if has_bias:
                    shapes[name + ".bias"] = shape[:1]
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{layer}.{norm}.weight"] = (width,)
    shapes["model.norm.weight"] = (width,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    return shapes


def stored_dtype(checkpoint):
    """The type of the weights, by the first projection's."""
    found = checkpoint["model.layers.0.self_attn.q_proj.weight"].dtype
    for short, name in FLOATS.items():
        if name == found:
            return short
    raise ToolError(f"{checkpoint.directory}: weights are of type {found}, not F32, BF16 or F16; give an unquantised "
                    "model")


def weights(config, checkpoint, dtype, adapter):
    """Tensors to write; `adapter` is added to those it adapts."""
    outputs = []
    for name, shape in weight_shapes(config).items():
        tensor = checkpoint[name]
        if tensor.shape != shape:
            raise ToolError(f"{checkpoint.directory}: tensor {name} has shape {list(tensor.shape)}, but config.json says "
                            f"{list(shape)}; fetch the model again")
        is_adapted = adapter is not None and adapter.pair(name) is not None
        outputs.append(adapter.merged(tensor, FLOATS[dtype]) if is_adapted else copied(tensor, FLOATS[dtype]))
    return outputs


def copy_companions(source, directory):
    """The tokenizer, what generation starts from, and our code."""
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, directory / name)
    if (source / "generation_config.json").exists():
        settings = read_json(source / "generation_config.json", "remove it or fetch it again")
        write_json(directory / "generation_config.json", {**settings, "use_cache": True})
    for name in CODE_FILES:
        shutil.copyfile(CODE / name, directory / name)


def write_model(directory, source, config, form, outputs, dtype, largest_shard, advance):
    copy_companions(Path(source), directory)
    write_checkpoint(directory, outputs, largest_shard, advance)
    write_json(directory / "config.json", linear_config(config, form, dtype))
