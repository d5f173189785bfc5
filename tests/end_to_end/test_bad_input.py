#!/usr/bin/env python3
"""Bad input: each program refuses it with one line that names the file, the thing and a remedy, and writes nothing.

Every test damages a copy of good input (the golden model and what belongs to it) in one way.
"""

import json
import re
import shutil
import struct
import unittest

import h5py
import numpy as np

import support
from support import GOLDEN

TOKENS = GOLDEN / "tokens_T96.h5"
MAPS = GOLDEN / "feature_maps.safetensors"
PROGRAMS = ("hidden", "block", "lora", "eval")
REMEDY = re.compile(r"\b(give|fetch|download|did you mean|see --help|run|use|drop|remove|lower|raise|pack|free|correct|"
                    r"convert|train|delete|keep|save|make|look for|put|add|must be|only|one of|at least|nearest|write|"
                    r"integer|check|choose|made with|leave|is missing before)\b")
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


def setUpModule():
    global STORE
    STORE = support.tempfile.TemporaryDirectory(prefix="lolcats-store-")
    support.run("hidden", model=GOLDEN / "model", tokens=TOKENS, dtype="f32", block_layers=1, work=STORE.name)


def tearDownModule():
    STORE.cleanup()


class BadInput(support.TestCase):
    """Good input in a directory of its own, and the check that a program refuses it once it is damaged."""

    def setUp(self):
        super().setUp()
        self.model = self.path("model")
        shutil.copytree(GOLDEN / "model", self.model)
        self.weights = self.model / "model.safetensors"
        self.work = self.path("work")

    def options(self, program):
        given = {"model": self.model, "tokens": TOKENS, "dtype": "f32", "window": 16, "work": self.work, "steps": 1}
        if program == "hidden":
            given["block_layers"] = 1
        if program in ("lora", "eval"):
            given["feature_maps"] = MAPS
        return given

    def outputs(self):
        """What a later stage could take as whole; logs, the record of attempts and what an attempt left under another
        name are not."""
        found = {}
        for path in sorted(self.work.rglob("*")):
            if path.is_file() and path.suffix in (".safetensors", ".h5", ".json") and \
                    path.parent.name not in ("hidden", "attempts"):
                found[path] = path.read_bytes()
        return found

    def refused(self, program, *words, ranks=0, cwd=None, **changes):
        before = self.outputs()
        done = support.attempt(program, ranks, threads=1, cwd=cwd, timeout=60, **{**self.options(program), **changes})
        self.assert_fails(done, *map(str, words))
        line = next(line for line in done.stderr.splitlines() if "error:" in line)
        self.assertTrue(line.startswith(f"lolcats_{program}: error: "), line)
        self.assertRegex(line, REMEDY)
        self.assertEqual(done.returncode, 1, done.stderr[-2000:])  # not a signal's
        self.assertEqual(done.stdout, "")
        self.assertEqual(self.outputs(), before)

    def refused_by(self, programs, *words, **changes):
        for program in programs:
            with self.subTest(program=program):
                self.refused(program, *words, **changes)

    def accepted(self, program, ranks=0, **changes):
        support.run(program, ranks, threads=1, **{**self.options(program), **changes})


def edit_header(path, edit):
    """Rewrites the header of a safetensors file and leaves its data."""
    header = support.safetensors_header(path)
    content = path.read_bytes()
    edit(header)
    support.write_safetensors_parts(path, json.dumps(header), content[8 + struct.unpack("<Q", content[:8])[0]:])


def edit_tensors(source, path, edit):
    arrays = {name: array.copy() for name, array in support.read_safetensors(source).items()}
    edit(arrays)
    support.write_safetensors(path, arrays)


def put_nan(name):
    return lambda arrays: arrays[name].__setitem__(tuple(0 for _ in arrays[name].shape), np.nan)


class Weights(BadInput):
    """model.safetensors: cut short, of another kind, hostile, or of another model."""

    def check_content(self, content, *words, programs=("eval",)):
        self.weights.write_bytes(content)
        self.refused_by(programs, self.weights, *words)

    def check_header(self, header, *words, data=b""):
        support.write_safetensors_parts(self.weights, header, data)
        self.refused("eval", self.weights, *words)

    def test_good_input_is_accepted(self):
        for program in PROGRAMS:
            self.accepted(program)

    def test_truncated(self):
        self.check_content(self.weights.read_bytes()[:-100], "cut short", programs=PROGRAMS)
        self.refused("block", self.weights, "cut short", ranks=4)

    def test_truncated_header(self):
        self.check_content(self.weights.read_bytes()[:100], "cut short")
        self.check_content(self.weights.read_bytes()[:5], "5 bytes")
        self.check_content(b"", "0 bytes")

    def test_another_kind_of_file(self):
        for kind, start in {"HDF5": TOKENS.read_bytes(), "zip": b"PK\x03\x04" + bytes(100), "pickle": b"\x80\x02}" * 99,
                            "LFS": b"version https://git-lfs.github.com/spec/v1\n",
                            "GGUF": b"GGUF" + bytes(99)}.items():
            with self.subTest(kind=kind):
                self.check_content(start, kind)

    def test_huge_header_length(self):
        for length in (2**64 - 1, 2**63, 2**60, 200_000_000, 90_000_000):
            with self.subTest(length=length):
                self.check_content(struct.pack("<Q", length) + b'{"a":{}}', "header", length)

    def test_header_is_no_json(self):
        self.check_header('{"a": ', "JSON")
        self.check_header("[1, 2]", "JSON object")
        self.check_header("\0" * 64, "JSON")

    def test_deeply_nested_header(self):
        self.check_header('{"a":' * 200_000, "nested")

    def test_tensor_twice_in_header(self):
        tensor = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
        self.check_header("{" + tensor + "," + tensor + "}", '"a"', "twice", data=bytes(4))

    def test_hostile_shape(self):
        for shape in ([2**62, 4], [-1], [1.5], "x", [2**64]):
            with self.subTest(shape=shape):
                header = {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}
                self.check_header(json.dumps(header), "tensor a", data=bytes(4))

    def test_line_break_in_tensor_name(self):
        self.check_header('{"a\\nlolcats_eval: error: b": 1}', "tensor a?lolcats_eval")

    def test_overlapping_tensors(self):
        def overlap(header):
            names = [name for name in header if name != "__metadata__"]
            first, second = sorted(names, key=lambda name: header[name]["data_offsets"])[:2]
            size = header[second]["data_offsets"][1] - header[second]["data_offsets"][0]
            header[second]["data_offsets"] = [header[first]["data_offsets"][0], header[first]["data_offsets"][0] + size]

        edit_header(self.weights, overlap)
        self.refused_by(PROGRAMS, self.weights, "overlaps")

    def test_offsets_outside_the_file(self):
        edit_header(self.weights, lambda header: header[Q_PROJ].update(data_offsets=[0, 2**40]))
        self.refused("eval", self.weights, Q_PROJ, "outside")

    def test_wrong_dtype(self):
        edit_header(self.weights, lambda header: header[Q_PROJ].update(dtype="F31"))
        self.refused("eval", self.weights, Q_PROJ, "F31")
        self.weights.write_bytes((GOLDEN / "model" / "model.safetensors").read_bytes())
        edit_header(self.weights, lambda header: header[Q_PROJ].update(dtype="I32"))
        self.refused_by(("hidden", "eval"), self.weights, Q_PROJ, "I32", "quantised")

    def test_missing_tensor(self):
        edit_tensors(self.weights, self.weights, lambda arrays: arrays.pop(Q_PROJ))
        self.refused_by(PROGRAMS, self.weights, Q_PROJ, "nearest")
        self.refused("hidden", self.weights, Q_PROJ, ranks=4)

    def test_wrong_shape(self):
        edit_tensors(self.weights, self.weights, lambda arrays: arrays.update({Q_PROJ: np.zeros((64, 32))}))
        self.refused_by(PROGRAMS, self.weights, Q_PROJ, "[64, 32]", "[64, 64]")

    def test_missing_final_tensors(self):
        for name in ("model.norm.weight", "lm_head.weight"):
            edit_tensors(GOLDEN / "model" / "model.safetensors", self.weights, lambda arrays, n=name: arrays.pop(n))
            self.refused_by(("lora", "eval"), self.weights, name)


class Shards(BadInput):
    """A checkpoint of two files and an index."""

    def setUp(self):
        super().setUp()
        arrays = support.read_safetensors(self.weights)
        self.weights.unlink()
        self.index = self.model / "model.safetensors.index.json"
        shards = ({}, {})
        for name, array in arrays.items():
            shards[".layers.1." in name][name] = array
        self.names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
        self.map = {}
        for shard, name in zip(shards, self.names):
            support.write_safetensors(self.model / name, shard)
            self.map.update(dict.fromkeys(shard, name))
        self.write_index()

    def write_index(self):
        self.index.write_text(json.dumps({"metadata": {}, "weight_map": self.map}), encoding="utf-8")

    def test_good_shards_are_accepted(self):
        self.accepted("eval")

    def test_missing_shard(self):
        (self.model / self.names[1]).unlink()
        self.refused_by(PROGRAMS, self.names[1], "No such file")
        self.refused("lora", self.names[1], ranks=4)

    def test_tensor_not_in_its_shard(self):
        self.map[Q_PROJ] = self.names[0]
        self.write_index()
        self.refused("eval", self.names[0], Q_PROJ)

    def test_tensor_not_in_index(self):
        del self.map[Q_PROJ]
        self.write_index()
        self.refused("block", self.index, Q_PROJ)

    def test_index_escapes_its_directory(self):
        for name in ("../model.safetensors", "/etc/passwd", "..", "", "a/b.safetensors"):
            with self.subTest(name=name):
                self.map[Q_PROJ] = name
                self.write_index()
                self.refused("eval", self.index, f'"{name}"', "plain file name")

    def test_index_is_no_index(self):
        for text in ("", "{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}'):
            with self.subTest(text=text):
                self.index.write_text(text, encoding="utf-8")
                self.refused("eval", self.index, "weight_map")


class Config(BadInput):
    """config.json and the model's directory."""

    def edit(self, **changes):
        config = json.loads((GOLDEN / "model" / "config.json").read_text(encoding="utf-8"))
        config.update(changes)
        (self.model / "config.json").write_text(json.dumps(config), encoding="utf-8")

    def test_missing(self):
        (self.model / "config.json").unlink()
        self.refused_by(PROGRAMS, self.model / "config.json", "directory of the model")
        self.refused("eval", self.model / "config.json", ranks=4)

    def test_no_json(self):
        (self.model / "config.json").write_text("{ no", encoding="utf-8")
        self.refused("eval", self.model / "config.json", "JSON")

    def test_deeply_nested(self):
        (self.model / "config.json").write_text('{"foo": ' + "[" * 200_000 + "]" * 200_000 + "}", encoding="utf-8")
        self.refused_by(("eval", "plan"), self.model / "config.json", "nested")

    def test_refused_values(self):
        yarn = {"rope_type": "yarn", "factor": 4}
        for key, value in {"architectures": ["GPT2LMHeadModel"], "model_type": "qwen2", "rope_scaling": yarn,
                           "hidden_act": "gelu", "quantization_config": {"bits": 4}, "use_qk_norm": True,
                           "num_attention_heads": 5, "hidden_size": "64", "rms_norm_eps": -1, "head_dim": 15,
                           "sliding_window": 64, "num_hidden_layers": None}.items():
            with self.subTest(key=key):
                self.edit(**{key: value})
                name = {"rope_scaling": "yarn", "head_dim": "head dimension"}.get(key, key)
                self.refused("eval", self.model / "config.json", name)

    def test_refused_by_every_program(self):
        self.edit(use_qk_norm=True)
        self.refused_by(PROGRAMS, self.model / "config.json", "use_qk_norm")
        self.refused("plan", self.model / "config.json", "use_qk_norm")

    def test_more_layers_than_the_weights_have(self):
        self.edit(num_hidden_layers=4)
        self.refused_by(("block", "eval"), self.weights, "model.layers.3.")

    def test_sequences_longer_than_the_sliding_window(self):
        self.edit(model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=64)
        self.refused_by(PROGRAMS, TOKENS, "96", "sliding_window, 64")

    def test_no_model_directory(self):
        self.refused("eval", self.path("nowhere"), "directory", model=self.path("nowhere"))

    def test_no_weights(self):
        self.weights.unlink()
        self.refused("eval", self.model, "model.safetensors")
        (self.model / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
        self.refused("eval", self.model, "pytorch_model.bin", "convert")


class Tokens(BadInput):
    """The token store."""

    def setUp(self):
        super().setUp()
        self.good = support.read_hdf5(TOKENS)
        self.tokens = self.path("tokens.h5")

    def check(self, *words, tokens=None, labels=None, programs=PROGRAMS, **options):
        with h5py.File(self.tokens, "w") as out:
            for name, array in {"tokens": tokens, "labels": labels}.items():
                if array is not None:
                    out[name] = array
        self.refused_by(programs, self.tokens, *words, tokens=self.tokens, **options)

    def changed(self, name, place, value):
        array = self.good[name].copy()
        array[place] = value
        return array

    def test_token_out_of_vocabulary(self):
        for value in (128, -1, 2**31 - 1):
            with self.subTest(value=value):
                self.check("sequence 2, position 7", f"token {value}", "128",
                           tokens=self.changed("tokens", (2, 7), value))
        self.check("sequence 2, position 7", tokens=self.changed("tokens", (2, 7), 128), ranks=4)

    def test_label_out_of_vocabulary(self):
        labels = self.changed("labels", (1, 5), 128)
        self.check("sequence 1, position 5", "label 128", tokens=self.good["tokens"], labels=labels,
                   programs=("lora", "eval"))

    def check_before_the_first_step(self, *words, labels, **options):
        """Of three steps of one sequence each, with checkpoints that a later error would leave behind."""
        for ranks in (0, 4):
            self.check(*words, tokens=self.good["tokens"], labels=labels, programs=("lora",), ranks=ranks,
                       **{"steps": 3, "batch_size": 1, "checkpoint_every": 1, **options})
            self.assertFalse((self.work / "lora").exists())

    def test_label_out_of_vocabulary_in_a_late_step(self):
        self.check_before_the_first_step("sequence 2, position 5", "label 128",
                                         labels=self.changed("labels", (2, 5), 128))
        self.accepted("lora", tokens=self.tokens, sequences=2)

    def test_nothing_labelled_in_a_late_step(self):
        labels = self.changed("labels", 2, -100)
        labels[2, 0] = 5  # which nothing predicts
        self.check_before_the_first_step("the batch of step 2", "no labelled token", labels=labels)
        self.accepted("lora", tokens=self.tokens, steps=2, batch_size=1)

    def test_nothing_labelled_is_held_out(self):
        self.check_before_the_first_step("the first 1 sequences, which are held out", "no labelled token",
                                         labels=self.changed("labels", 0, -100), validation=1, steps=2)

    def test_nothing_labelled(self):
        labels = np.full_like(self.good["labels"], -100)
        self.check("no labelled token", tokens=self.good["tokens"], labels=labels, programs=("lora", "eval"))

    def test_labels_of_other_shape(self):
        self.check("/labels", "[2, 96]", tokens=self.good["tokens"], labels=self.good["labels"][:2])

    def test_wrong_rank(self):
        self.check("/tokens", "[288]", tokens=self.good["tokens"].ravel(), programs=("eval",))

    def test_no_integers(self):
        self.check("/tokens", "integers", tokens=self.good["tokens"].astype(np.float32), programs=("eval",))

    def test_no_sequences(self):
        self.check("/tokens", "[0, 96]", tokens=self.good["tokens"][:0], programs=("eval",))

    def test_missing_dataset(self):
        self.check("/tokens", labels=self.good["labels"])

    def test_too_few_sequences(self):
        self.check("4 sequences", "3", tokens=self.good["tokens"], programs=("eval",), sequences=4)
        self.check("holding out 3 of 3", tokens=self.good["tokens"], programs=("block", "lora"), validation=3)

    def test_no_hdf5(self):
        self.tokens.write_text("1 2 3\n", encoding="utf-8")
        self.refused_by(PROGRAMS, self.tokens, "HDF5", tokens=self.tokens)

    def test_truncated(self):
        content = TOKENS.read_bytes()
        self.tokens.write_bytes(content[:len(content) // 2])
        self.refused("eval", self.tokens, tokens=self.tokens)
        self.refused("eval", self.tokens, tokens=self.tokens, ranks=4)

    def test_no_file(self):
        self.refused("eval", self.tokens, "no such file", tokens=self.tokens)


class Settings(BadInput):
    """The command line and lolcats.toml."""

    def test_unknown_option(self):
        self.refused_by((*PROGRAMS, "plan"), "--windwo", "did you mean '--window'", windwo=3)
        self.refused("block", "--windwo", "did you mean '--window'", windwo=3, ranks=4)

    def test_unknown_key(self):
        (self.directory / "lolcats.toml").write_text("model = \"m\"\nlora-rnak = 4\n", encoding="utf-8")
        self.refused_by(PROGRAMS, "lolcats.toml", "lora-rnak", "did you mean 'lora-rank'", cwd=self.directory)
        self.refused("lora", "lolcats.toml", "lora-rnak", "lora-rank", cwd=self.directory, ranks=4)

    def test_bad_values(self):
        for option, value in {"window": 0, "lr": "nan", "dtype": "f16", "attention": "full", "lora_modules": "up_proj",
                              "steps": "many", "batch_size": -1, "lora_dropout": 1, "seed": -1, "micro_batch": 0,
                              "feature_map": "relu", "gemm": "", "beta1": 1.5, "clip": "1e999"}.items():
            with self.subTest(option=option):
                self.refused("lora", "--" + option.replace("_", "-"), f"'{value}'", **{option: value})

    def test_bad_values_in_file(self):
        for text, word in {"window = 0": "window", "window = \"a\"": "window", "window = [1]": "array",
                           "dtype = f32": "double quotes", "window 3": "key = value", "window = 1\nwindow = 2": "each key once",
                           "[model]": "sections"}.items():
            with self.subTest(text=text):
                (self.directory / "run.toml").write_text(text + "\n", encoding="utf-8")
                self.refused("eval", "run.toml, line", word, config=self.directory / "run.toml")

    def test_text_that_is_not_utf8(self):
        for program, ranks in (("eval", 0), ("plan", 0), ("lora", 4)):
            self.refused(program, "--model", "UTF-8", model=f"{self.directory}/m\udcff", ranks=ranks)

    def test_numbers_that_are_too_large_together(self):
        for program, ranks in (("block", 0), ("lora", 0), ("block", 4), ("lora", 4)):
            self.refused(program, "--epochs 800000000", "3 steps each", steps=None, batch_size=1, epochs=800_000_000,
                         ranks=ranks)
        self.refused_by(PROGRAMS, "--micro-batch 30000000", "sequences of 96 tokens", micro_batch=30_000_000)

    def test_a_plan_that_is_refused_is_printed(self):
        done = support.attempt("plan", **self.options("plan"), plan_check=True, plan_memory=1000)
        self.assert_fails(done, str(self.model), "a rank needs")
        self.assertIn("stage 2, LoRA", done.stdout)

    def test_missing_settings(self):
        self.refused_by(PROGRAMS, "--model", "missing", model=None)
        self.refused_by(PROGRAMS, "--tokens", "missing", tokens=None)

    def test_missing_configuration_file(self):
        self.refused("eval", "none.toml", "--config", config="none.toml")

    def test_settings_that_contradict(self):
        self.refused("eval", "--feature-maps", attention="teacher")


class FeatureMaps(BadInput):
    """Feature maps that stage 1 did not leave like this."""

    def setUp(self):
        super().setUp()
        self.maps = self.path("maps.safetensors")
        self.map = "model.layers.1.self_attn.feature_map_q.mlp.layer"

    def check(self, edit, *words, **options):
        edit_tensors(MAPS, self.maps, edit)
        self.refused_by(("lora", "eval"), self.maps, *words, feature_maps=self.maps, **options)
        self.refused("block", self.maps, *words, feature_maps=None, init_feature_maps=self.maps, **options)

    def test_wrong_shape(self):
        self.check(lambda arrays: arrays.update({self.map: np.zeros((4, 16, 4))}), self.map, "[4, 16, 4]")

    def test_of_another_head_dimension(self):
        self.check(lambda arrays: arrays.update({name: np.zeros((4, 8, 8)) for name in arrays if "mlp" in name}),
                   "feature_map", "[4, 8, 8]")

    def test_of_another_kind(self):
        bias = "model.layers.0.self_attn.feature_map_q.mlp.bias"
        self.check(lambda arrays: arrays.update({bias: np.zeros((1, 4, 1, 1))}), bias, "--feature-map t2r")

    def test_missing_layer(self):
        self.check(lambda arrays: [arrays.pop(n) for n in list(arrays) if ".layers.1." in n],
                   "model.layers.1.", "missing")
        self.refused("lora", "model.layers.1.", "missing", feature_maps=self.maps, ranks=4)

    def test_missing_window_factors(self):
        self.check(lambda arrays: [arrays.pop(n) for n in list(arrays) if n.endswith("window_factors")],
                   "window_factors")

    def test_nan(self):
        self.check(put_nan(self.map), self.map, "not finite")

    def test_no_maps_at_all(self):
        self.check(lambda arrays: arrays.clear() or arrays.update(a=np.zeros(3)), "feature_map_q")

    def test_directory_without_files(self):
        self.maps.mkdir()
        self.refused_by(("lora", "eval"), self.maps, "lolcats_block", feature_maps=self.maps)

    def test_no_such_directory(self):
        self.refused_by(("lora", "eval"), self.maps, "lolcats_block", feature_maps=self.maps)
        self.refused("lora", self.work / "transfer", "lolcats_block", feature_maps=None)

    def test_truncated(self):
        self.maps.write_bytes(MAPS.read_bytes()[:-8])
        self.refused("eval", self.maps, "cut short", feature_maps=self.maps)

    def test_files_left_from_another_run(self):
        self.maps.mkdir()
        for block in range(2):
            shutil.copy(MAPS, self.maps / f"block_0{block}.safetensors")
        self.refused("lora", "block_00.safetensors", "block_01.safetensors", "another run", feature_maps=self.maps)

    def test_trained_with_other_settings(self):
        self.accepted("block")
        maps = self.work / "transfer"
        self.refused_by(("lora", "eval"), maps, "feature-map", "hedgehog", feature_maps=maps, feature_map="exp_dim")

    def test_blocks_of_different_runs(self):
        """Blocks trained in different forms are no student, even if each is there."""
        hidden = self.work / "hidden"
        shutil.copytree(support.Path(STORE.name) / "hidden", hidden)
        self.accepted("block", block_layers=1)
        whole = (self.work / "transfer" / "block_01.safetensors").read_bytes()
        self.accepted("block", block_layers=1, window=32)
        (self.work / "transfer" / "block_01.safetensors").write_bytes(whole)
        self.refused("lora", "block_01.safetensors", "window", "lolcats_block", feature_maps=None, window=None)


class Adapter(BadInput):
    """A PEFT directory that cannot be used as it is."""

    def setUp(self):
        super().setUp()
        self.adapter = self.path("adapter")
        shutil.copytree(GOLDEN / "lora", self.adapter)
        self.config = self.adapter / "adapter_config.json"
        self.file = self.adapter / "adapter_model.safetensors"
        self.tensor = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"

    def check(self, *words, **options):
        self.refused("eval", *words, adapter=self.adapter, **options)
        self.refused("lora", *words, init_adapter=self.adapter, **options)

    def test_unsupported_keys(self):
        good = json.loads(self.config.read_text(encoding="utf-8"))
        for key, value in {"use_dora": True, "use_rslora": True, "rank_pattern": {"q_proj": 2}, "lora_bias": True,
                           "modules_to_save": ["lm_head"], "peft_type": "IA3", "bias": "all", "fan_in_fan_out": True,
                           "target_modules": ["gate_proj"], "r": "four", "lora_alpha": None,
                           "layers_to_transform": [0]}.items():
            with self.subTest(key=key):
                self.config.write_text(json.dumps({**good, key: value}), encoding="utf-8")
                self.check(self.config, "gate_proj" if key == "target_modules" else key)

    def test_values_that_train_nothing_or_twice(self):
        good = json.loads(self.config.read_text(encoding="utf-8"))
        for key, value in (("lora_dropout", 1), ("lora_dropout", -0.5), ("target_modules", ["q_proj", "q_proj"])):
            with self.subTest(key=key, value=value):
                self.config.write_text(json.dumps({**good, key: value}), encoding="utf-8")
                self.check(self.config, key)

    def test_rank_of_no_adapter(self):
        good = json.loads(self.config.read_text(encoding="utf-8"))
        for rank in (0, 4.5, 2**32 + 4):
            with self.subTest(rank=rank):
                self.config.write_text(json.dumps({**good, "r": rank}), encoding="utf-8")
                self.check(self.config, f"r = {rank} ")

    def test_wrong_rank(self):
        edit_tensors(self.file, self.file, lambda arrays: arrays.update({self.tensor: np.zeros((3, 64))}))
        self.check(self.file, self.tensor, "[3, 64]", "[4, 64]")

    def test_missing_tensor(self):
        edit_tensors(self.file, self.file, lambda arrays: arrays.pop(self.tensor))
        self.check(self.file, self.tensor)
        self.refused("eval", self.file, self.tensor, adapter=self.adapter, ranks=4)

    def test_tensor_that_would_be_left_out(self):
        name = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
        edit_tensors(self.file, self.file, lambda arrays: arrays.update({name: np.zeros((4, 64))}))
        self.check(self.file, name)
        name = "base_model.model.model.layers.1.self_attn." + "q" * 200_000 + ".lora_A.weight"
        edit_tensors(GOLDEN / "lora" / self.file.name, self.file,
                     lambda arrays: arrays.update({name: np.zeros((4, 64))}))
        self.check(self.file, name[:100])

    def test_nan(self):
        edit_tensors(self.file, self.file, put_nan(self.tensor))
        self.check(self.file, self.tensor, "not finite")

    def test_missing_files(self):
        self.file.unlink()
        self.check(self.file)
        self.config.unlink()
        self.check(self.config)

    def test_no_json(self):
        deep = '{"rank_pattern": ' + "[" * 200_000 + "]" * 200_000 + "}"
        for text, word in {"[": "JSON", deep: "nested"}.items():
            self.config.write_text(text, encoding="utf-8")
            self.check(self.config, word)

    def test_truncated(self):
        self.file.write_bytes(self.file.read_bytes()[:-1])
        self.check(self.file, "cut short")


class HiddenStore(BadInput):
    """What stage 1 finds in WORK/hidden."""

    def setUp(self):
        super().setUp()
        self.model = GOLDEN / "model"
        self.hidden = self.work / "hidden"
        shutil.copytree(support.Path(STORE.name) / "hidden", self.hidden)
        self.store = self.hidden / "block_01.h5"

    def test_good_store_is_accepted(self):
        self.accepted("block", block_layers=1)

    def test_missing(self):
        shutil.rmtree(self.hidden)
        self.blocks_after_the_first_are_refused(self.store)
        self.blocks_after_the_first_are_refused("block_0", ranks=4)

    def test_incomplete(self):
        with h5py.File(self.store, "r+") as file:
            marks = [name for name in file if file[name].dtype == np.uint8]
            self.assertEqual(len(marks), 1)
            file[marks[0]][1] = 0
        self.blocks_after_the_first_are_refused(self.store, "2 of 3 sequences")
        self.blocks_after_the_first_are_refused(self.store, "2 of 3 sequences", ranks=4)
        support.run("hidden", **self.options("hidden"))
        self.accepted("block", block_layers=1)

    def blocks_after_the_first_are_refused(self, *words, ranks=0, **options):
        """Blocks that need not the damaged store may be trained by then, which are whole by themselves."""
        done = support.attempt("block", ranks, **{**self.options("block"), "block_layers": 1, **options})
        self.assert_fails(done, *map(str, words), "lolcats_hidden")
        left = {path.name for path in self.work.rglob("*.safetensors")}
        self.assertNotIn("block_01.safetensors", left)
        if ranks == 0:
            self.assertEqual(left, {"block_00.safetensors"})
            model = {"model": options["model"]} if "model" in options else {}
            self.refused("lora", "model.layers.1.", "missing", feature_maps=None, **model)
        shutil.rmtree(self.work / "transfer")

    def test_flipped_bit(self):
        with h5py.File(self.store, "r+") as file:
            states = file["hidden_states"]
            changed = states[1, 3, 5].view(np.uint32) ^ np.uint32(1)
            states[1, 3, 5] = changed.view(np.float32)
        self.blocks_after_the_first_are_refused(self.store, "sequence 1", "checksum")

    def test_truncated(self):
        self.store.write_bytes(self.store.read_bytes()[:-5000])
        self.blocks_after_the_first_are_refused(self.store)

    def test_not_hdf5(self):
        self.store.write_bytes(b"PK\x03\x04" + bytes(1000))
        self.blocks_after_the_first_are_refused(self.store, "HDF5")

    def test_of_another_model(self):
        other = self.path("other")
        shutil.copytree(GOLDEN / "model", other)
        config = json.loads((other / "config.json").read_text(encoding="utf-8"))
        (other / "config.json").write_text(json.dumps({**config, "rope_theta": 5000.0}), encoding="utf-8")
        self.blocks_after_the_first_are_refused(self.store, "its model is another one", model=other)

    def test_of_other_tokens(self):
        tokens = support.read_hdf5(TOKENS)["tokens"]
        tokens[0, 0] ^= 1
        other = support.write_tokens(self.path("other.h5"), tokens)
        self.blocks_after_the_first_are_refused(self.store, "token identity", tokens=other)

    def test_of_other_block_layers(self):
        done = support.attempt("block", **{**self.options("block"), "block_layers": 2})
        self.assert_fails(done, self.store.name, "layer", "lolcats_hidden")

    def test_of_another_type(self):
        self.blocks_after_the_first_are_refused(self.store, "BF16", hidden_dtype="bf16")


if __name__ == "__main__":
    unittest.main()
