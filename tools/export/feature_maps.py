"""Trained feature maps: which form of attention they are for, and their tensors under the reference's names."""

from pathlib import Path

import numpy as np

from tensor_files import TensorFile, copied
from tool_error import ToolError

ATTENTION_FORMS = ("terrace", "sliding", "none")
FEATURE_MAPS = ("hedgehog", "hedgehog_half", "t2r", "exp_dim", "exp_dim_half", "pos_elu", "dpfp")
PER_FILE = ("run_deck", "settings")  # metadata in which the files of one run differ


class FeatureMaps:
    """All files of a directory, or one file. `given`: options of the command line, None where left out."""

    def __init__(self, path, given):
        self.path = Path(path)
        if not self.path.exists():
            raise ToolError(f"{path}: no such file or directory; give what lolcats_block wrote, WORK/transfer")
        names = sorted(self.path.glob("*.safetensors")) if self.path.is_dir() else [self.path]
        if not names:
            raise ToolError(f"{path}: holds no .safetensors file; run lolcats_block first")
        self.metadata, self.tensors, self.settings = {}, {}, None
        for name in names:
            self.add(TensorFile(name))
        self.settle(given)

    def add(self, file):
        self.settings = self.settings or file.metadata.get("settings")
        for key, value in file.metadata.items():
            if key not in PER_FILE and self.metadata.setdefault(key, value) != value:
                raise ToolError(f"{file.path}: was trained with {key} {value}, but another file in {self.path} with "
                                f"{self.metadata[key]}; run lolcats_block again")
        for name, tensor in file.tensors.items():
            if name in self.tensors:
                raise ToolError(f"{file.path}: tensor {name} is in another file of {self.path} too; remove the file that "
                                "is left from another run")
            self.tensors[name] = tensor

    def settle(self, given):
        """The form: window and near keys may be other than trained with; another map would not be the same weights."""
        self.attention = self.choose(given, "attention", ATTENTION_FORMS, may_differ=True)
        self.map = self.choose(given, "feature-map", FEATURE_MAPS)
        self.affine = self.choose(given, "affine-attention-factors", ("false", "true"), missing="false") == "true"
        window = self.choose(given, "window", missing="1" if self.attention == "none" else None, may_differ=True)
        if not str(window).isdecimal() or int(window) < 1:
            raise ToolError(f"{self.path}: '{window}' is no window; give --window")
        self.window = int(window)
        first = self.tensors.get("model.layers.0.self_attn.feature_map_q.mlp.layer")
        if first is None or len(first.shape) != 3:
            raise ToolError(f"{self.path}: holds no tensor model.layers.0.self_attn.feature_map_q.mlp.layer [H, d, f]; "
                            "give files that lolcats_block or tools/export/import_reference wrote")
        self.feature_dim = first.shape[2]

    def choose(self, given, key, choices=None, missing=None, may_differ=False):
        """What the command line says, or else the files' metadata."""
        stored, option = self.metadata.get(key), given.get(key)
        if option is not None and stored not in (None, option) and not may_differ:
            raise ToolError(f"{self.path}: the feature maps were trained with --{key} {stored}, not {option}; drop the "
                            "option or give other maps")
        value = option if option is not None else stored if stored is not None else missing
        if value is None:
            raise ToolError(f"{self.path}: does not say its {key}; give --{key}")
        if choices and value not in choices:
            raise ToolError(f"{self.path}: {key} '{value}' is not one of {', '.join(choices)}")
        return value

    def form(self):
        """The keys of config.json that tell the form."""
        return {"attention_form": self.attention, "window_size": self.window, "feature_map": self.map,
                "feature_dim": self.feature_dim, "affine_attention_factors": self.affine}

    def described(self):
        """Metadata as the programs write it."""
        return {"format": "pt", "attention": self.attention, "window": str(self.window), "feature-map": self.map,
                "feature-dim": str(self.feature_dim), "affine-attention-factors": "true" if self.affine else "false",
                "tie-feature-maps": self.metadata.get("tie-feature-maps", "false")}

    def outputs(self, config):
        """Every layer's tensors in float32, checked."""
        heads, d = config["num_attention_heads"], config["head_dim"]
        wanted = {}
        for side in "qk":
            wanted[f"feature_map_{side}.mlp.layer"] = (heads, d, self.feature_dim)
            if self.map == "t2r":
                wanted[f"feature_map_{side}.mlp.bias"] = (1, heads, 1, 1)
        if self.attention != "none":
            wanted["window_factors"] = (1, heads, 1, 1)
        return [self.output(f"model.layers.{layer}.self_attn.{what}", shape)
                for layer in range(config["num_hidden_layers"]) for what, shape in wanted.items()]

    def output(self, name, shape):
        tensor = self.tensors.get(name)
        if tensor is None:
            raise ToolError(f"{self.path}: tensor {name} is missing; give feature maps of every layer")
        if tensor.shape != shape:
            raise ToolError(f"{self.path}: tensor {name} has shape {list(tensor.shape)}, but the model and its map need "
                            f"{list(shape)}; give maps of this model")
        if not np.isfinite(tensor.values()).all():
            raise ToolError(f"{self.path}: tensor {name} holds values that are not finite; train it again")
        return copied(tensor, "F32")
