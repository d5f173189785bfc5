"""A LoRA adapter in PEFT's layout: added to the weights it adapts, or written anew beside them."""

import json
import re
from pathlib import Path

import numpy as np

from json_numbers import is_count, is_finite
from tensor_files import PIECE, Output, TensorFile, copied, narrow, write_tensors
from tool_error import ToolError
from whole_output import read_json, write_json

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
NAME = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.self_attn\.(\w+)\.lora_([AB])\.weight")
# What changes the sum W x + alpha / r B A x, and would be left out.
NEUTRAL = ("use_rslora", "use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save",
           "layers_to_transform", "layer_replication", "layers_pattern", "exclude_modules", "lora_bias",
           "target_parameters", "trainable_token_indices", "use_qalora", "alora_invocation_tokens")


class Adapter:
    def __init__(self, directory):
        self.directory = Path(directory)
        path = self.directory / CONFIG_FILE
        config = read_json(path, "give a PEFT adapter directory, as lolcats_lora writes WORK/lora")
        for key, neutral in (("peft_type", "LORA"), ("bias", "none"), *((key, None) for key in NEUTRAL)):
            if config.get(key, neutral) != neutral and config[key]:
                raise ToolError(f"{path}: {key} = {config[key]!r} is not supported; train the adapter without it")
        self.rank, self.alpha = config.get("r"), config.get("lora_alpha")
        self.dropout = config.get("lora_dropout", 0.0)
        self.modules = config.get("target_modules")
        if not is_count(self.rank) or not is_finite(self.alpha):
            raise ToolError(f"{path}: r = {self.rank!r} and lora_alpha = {self.alpha!r} are no adapter's; save it again")
        if not isinstance(self.modules, list) or not all(module in MODULES for module in self.modules):
            raise ToolError(f"{path}: target_modules {self.modules!r} are not among {', '.join(MODULES)}")
        self.file = TensorFile(self.directory / WEIGHTS_FILE)
        if kept := self.file.metadata.get("softmax-layers"):
            raise ToolError(f"{self.file.path}: layers {kept} keep softmax attention, which an exported model has no "
                            "place for; give an adapter trained without --keep-softmax-layers")

    def check_maps(self, maps):
        """Maps that were trained together with the adapter are part of it: those of stage 1 give another model."""
        settings = self.file.metadata.get("settings")
        try:
            trains_maps = settings is not None and json.loads(settings)["train-feature-maps"] is True
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        if trains_maps and maps.settings not in (settings, None):  # others write maps that do not say where they are from
            raise ToolError(f"{self.directory}: this adapter was trained together with its feature maps, which those of "
                            f"{maps.path} are not; give --feature-maps {self.directory / 'feature_maps.safetensors'}")

    def check(self, config):
        """Every tensor must have its place in the model, and every adapted projection both of its tensors."""
        shapes = projection_shapes(config)
        wanted = {}
        for layer in range(config["num_hidden_layers"]):
            for module in self.modules:
                rows, columns = shapes[module]
                stem = f"base_model.model.model.layers.{layer}.self_attn.{module}.lora_"
                wanted[stem + "A.weight"], wanted[stem + "B.weight"] = (self.rank, columns), (rows, self.rank)
        for name in self.file.tensors.keys() - wanted.keys():
            raise ToolError(f"{self.file.path}: tensor {name} belongs to nothing that {CONFIG_FILE} adapts")
        for name, shape in wanted.items():
            tensor = self.file.tensors.get(name)
            if tensor is None or tensor.shape != shape:
                found = "is missing" if tensor is None else f"has shape {list(tensor.shape)}"
                raise ToolError(f"{self.file.path}: tensor {name} {found}, {list(shape)} is needed; give this model's "
                                "adapter")
            if not np.isfinite(tensor.values()).all():
                raise ToolError(f"{self.file.path}: tensor {name} holds values that are not finite; train it again")

    def pair(self, weight_name):
        """A and B of the update of a weight, or None."""
        parts = re.fullmatch(r"model\.layers\.(\d+)\.self_attn\.(\w+)\.weight", weight_name)
        if parts is None or parts[2] not in self.modules:
            return None
        stem = f"base_model.model.{weight_name.removesuffix('.weight')}.lora_"
        return [self.file.tensors[f"{stem}{side}.weight"].array() for side in "AB"]

    def merged(self, tensor, dtype):
        """W + alpha / r B A, a few rows at a time."""
        def pieces():
            a, b = self.pair(tensor.name)
            rows, columns = tensor.shape
            step = max(1, PIECE // columns)
            for begin in range(0, rows, step):
                end = min(begin + step, rows)
                weight = tensor.values(begin * columns, end * columns).reshape(-1, columns)
                update = b[begin:end].astype(np.float64) @ a.astype(np.float64) * (self.alpha / self.rank)
                yield narrow(weight + update, dtype)

        return Output(tensor.name, dtype, tensor.shape, pieces)

    def write(self, directory, base_model):
        write_adapter(directory, base_model, self.rank, self.alpha, self.modules,
                      [copied(tensor, "F32") for tensor in self.file.tensors.values()], self.dropout)


def projection_shapes(config):
    """[outputs, inputs] of the projections that can be adapted."""
    width, d = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * d, config["num_key_value_heads"] * d
    return {"q_proj": (queries, width), "k_proj": (keys, width), "v_proj": (keys, width), "o_proj": (width, queries)}


def write_adapter(directory, base_model, rank, alpha, modules, outputs, dropout=0.0):
    directory.mkdir(parents=True, exist_ok=True)
    write_tensors(directory / WEIGHTS_FILE, outputs, {"format": "pt"})
    write_json(directory / CONFIG_FILE, {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_model, "r": rank,
        "lora_alpha": alpha, "lora_dropout": dropout, "bias": "none", "target_modules": list(modules),
        "fan_in_fan_out": False, "inference_mode": True})
