#!/usr/bin/env python3
"""Exported models in transformers and PEFT: their logits are the method's, and those of the programs."""

import json
import os
import resource
import struct
import sys

import numpy as np

from tool_support import ToolTest, load_model, logits, main, needs, run_here, run_tool, support

import reference

FORMS = ("terrace", "sliding", "none")
MAPS = ("hedgehog", "hedgehog_half", "t2r", "exp_dim", "exp_dim_half", "pos_elu", "dpfp")
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
GOLDEN_FORM = {"window": 16, "feature_map": "hedgehog"}
GOLDEN_MAPS = support.GOLDEN / "feature_maps.safetensors"


def config(family="llama", **changes):
    names = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"}
    return {"architectures": [names[family]], "model_type": family, "hidden_act": "silu", "hidden_size": 48,
            "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "vocab_size": 61, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
            "max_position_embeddings": 512, **changes}


class RandomModel(ToolTest):
    """A random model with random maps, and the float64 reference of both."""

    def make(self, form, family="llama", dtype="f32", shards=1, **changes):
        rng = np.random.default_rng(7)
        directory = self.path("model")
        support.shutil.rmtree(directory, ignore_errors=True)
        self.model = reference.make_model(directory, config(family, **changes), rng, dtype, shards)
        self.form, self.maps = form, reference.random_maps(self.model.config, form, rng)
        metadata = {"attention": form.kind, "window": str(form.window), "feature-map": form.map,
                    "affine-attention-factors": "true" if form.affine else "false"}
        reference.write_safetensors(self.path("maps.safetensors"), self.maps, metadata=metadata)
        self.tokens = rng.integers(3, 61, (3, 53))
        return {"model": directory, "feature_maps": self.path("maps.safetensors")}

    def check(self, name, tolerance=1e-5, **options):
        model = load_model(self.export(name, **options))
        self.assert_close(logits(model, self.tokens), reference.logits(self.model, self.tokens, self.form, self.maps),
                          tolerance, name)
        return model


@needs("torch", "transformers")
class Method(RandomModel):
    """Against explicit near and far sets in float64."""

    def test_every_form_and_map(self):
        for kind in FORMS:
            for name in MAPS:
                for affine in (False, True) if name == "hedgehog" else (False,):
                    form = reference.Form(kind, 5, name, affine=affine)
                    self.check(f"{kind} {name} {affine}", **self.make(form, num_hidden_layers=1))

    def test_every_window(self):
        for kind in FORMS:
            for window in (1, 2, 16, 26, 27, 53, 64, 1000):
                form = reference.Form(kind, window)
                self.check(f"{kind} {window}", **self.make(form, num_hidden_layers=1))

    def test_models(self):
        form = reference.Form("terrace", 8)
        for i, (dtype, shards, changes) in enumerate((
                ("f32", 1, {"tie_word_embeddings": True}),
                ("bf16", 3, {"attention_bias": True, "mlp_bias": True}),
                ("f16", 2, {"head_dim": 6, "num_attention_heads": 6, "num_key_value_heads": 3}),
                ("f32", 1, {"rope_theta": 500000.0, "rope_scaling": LLAMA3}),
                ("f32", 1, {"rope_theta": None, "rope_parameters": {"rope_theta": 500.0, **LLAMA3}}),
                ("f32", 1, {"num_key_value_heads": 1, "rms_norm_eps": 0.1}),
                ("bf16", 1, {"family": "mistral", "sliding_window": 4096}))):
            self.check(str(i), **self.make(form, dtype=dtype, shards=shards, **changes))


@needs("torch", "transformers")
class Programs(ToolTest):
    """Against the logits that lolcats_eval saves."""

    def evaluate(self, **options):
        file = self.path("logits.h5")
        support.evaluate(save_logits=file, dtype="f32", **options)
        return support.read_hdf5(file)["logits"]

    def tokens(self, path):
        return support.read_hdf5(path)["tokens"]

    def test_golden_model(self):
        golden = support.read_hdf5(support.GOLDEN / "golden.h5")
        for kind in FORMS:
            form = {"feature_maps": GOLDEN_MAPS, "attention": kind, **GOLDEN_FORM}
            for lora in (None, support.GOLDEN / "lora"):
                options = {**form, **({"adapter": lora} if lora else {})}
                model = load_model(self.export(f"{kind} {lora is None}", model=support.GOLDEN / "model", **options))
                for length in ("T96", "T71"):
                    file = support.GOLDEN / f"tokens_{length}.h5"
                    expected = self.evaluate(model=support.GOLDEN / "model", tokens=file, **options)
                    actual = logits(model, self.tokens(file))
                    self.assert_close(actual, expected, 1e-5, f"{kind} {length}")
                    name = f"{length}/{kind}/{'lora_' if lora else ''}logits"
                    self.assert_close(actual, golden[name], 1e-5, name)

    def test_tiny_teacher_through_the_whole_conversion(self):
        corpus = support.make_corpus(self.path("tokens.h5"), sequences=24, length=130, seed=3)
        for kind, name in (("terrace", "hedgehog"), ("sliding", "exp_dim"), ("none", "t2r")):
            work = self.path(kind)
            inputs = {"model": support.TINY, "tokens": corpus, "work": work, "window": 16, "batch_size": 4, "steps": 4,
                      "validation": 4, "attention": kind, "feature_map": name, "threads": 2}
            support.run("block", lr=0.01, **inputs)
            support.run("lora", lora_dropout=0, lr=0.01, **{**inputs, "feature_maps": work / "transfer"})
            trained = {"model": support.TINY, "feature_maps": work / "transfer", "adapter": work / "lora"}
            expected = self.evaluate(tokens=corpus, sequences=3, **trained)
            tokens = self.tokens(corpus)[:3]
            exported = self.export(f"{kind} out", dtype="f32", **trained)
            self.assert_close(logits(load_model(exported), tokens), expected, 1e-4, kind)
            apart = self.export(f"{kind} apart", lora="adapter", **trained)
            self.check_adapter(apart, tokens, expected)

    def check_adapter(self, directory, tokens, expected):
        """The teacher's own bf16 weights, and the adapter by PEFT."""
        try:
            from peft import PeftModel
        except ImportError:
            self.skipTest(f"{sys.executable} has no peft")
        base = load_model(directory)
        self.assertGreater(support.relative_rms(logits(base, tokens), expected), 1e-3)
        model = PeftModel.from_pretrained(base, str(directory / "adapter")).eval()
        self.assert_close(logits(model, tokens), expected, 1e-4, "PEFT")
        merged = model.merge_and_unload()
        self.assert_close(logits(merged, tokens), expected, 1e-4, "PEFT, merged")


class Files(ToolTest):
    """What is written, and what is refused; needs no PyTorch."""
    # Each tool runs as a user would run it in one test at least, and in this process where it has to be run often.

    def golden(self, **options):
        return {"model": support.GOLDEN / "model", "feature_maps": GOLDEN_MAPS, "attention": "terrace", **GOLDEN_FORM,
                **options}

    def test_weights_are_the_teachers_bytes(self):
        directory = self.export("out", by=run_tool, **self.golden())
        written = support.read_safetensors(directory / "model.safetensors")
        for name, array in support.read_safetensors(support.GOLDEN / "model" / "model.safetensors").items():
            self.assert_same_numbers(written.pop(name), array, name)
        for name, array in support.read_safetensors(GOLDEN_MAPS).items():
            self.assert_same_numbers(written.pop(name), array, name)
        self.assertEqual(written, {})

    def test_merged_and_rounded(self):
        directory = self.export("out", **self.golden(adapter=support.GOLDEN / "lora", dtype="bf16"))
        written = support.read_safetensors(directory / "model.safetensors")
        lora = support.read_safetensors(support.GOLDEN / "lora" / "adapter_model.safetensors")
        for name, array in support.read_safetensors(support.GOLDEN / "model" / "model.safetensors").items():
            a, b = (lora.get(f"base_model.model.{name.removesuffix('.weight')}.lora_{side}.weight") for side in "AB")
            expected = array if a is None else array + 2 * (np.float64(b) @ a)
            self.assert_same_numbers(written[name], reference.round_to_bf16(expected), name)

    def test_shards_and_companions(self):
        model = self.path("model")
        support.shutil.copytree(support.GOLDEN / "model", model)
        (model / "tokenizer.json").write_text('{"some": "tokenizer"}')
        directory = self.export("out", **self.golden(model=model, shard_size="30KB"))
        self.assertEqual((directory / "tokenizer.json").read_text(), '{"some": "tokenizer"}')
        index = json.loads((directory / "model.safetensors.index.json").read_text())
        files = sorted(directory.glob("*.safetensors"))
        self.assertEqual(sorted(set(index["weight_map"].values())), [path.name for path in files])
        self.assertGreater(len(files), 5)
        arrays = {}
        for path in files:
            tensors = support.read_safetensors(path)
            self.assertTrue(len(tensors) == 1 or sum(array.nbytes for array in tensors.values()) <= 30000)
            self.assertTrue(all(index["weight_map"][name] == path.name for name in tensors))
            arrays.update(tensors)
        single = support.read_safetensors(self.export("single", **self.golden()) / "model.safetensors")
        self.assert_all_close(arrays, single, 0)

    def test_adapter_and_maps_alone(self):
        directory = self.export("out", **self.golden(adapter=support.GOLDEN / "lora", without_weights=True))
        self.assertEqual(sorted(path.name for path in directory.iterdir()), ["adapter", "feature_maps.safetensors"])
        inputs = {"model": support.GOLDEN / "model", "tokens": support.GOLDEN / "tokens_T71.h5", "dtype": "f32"}
        expected = support.evaluate(**inputs, feature_maps=GOLDEN_MAPS, adapter=support.GOLDEN / "lora", window=16)
        # The written maps say their window themselves.
        actual = support.evaluate(**inputs, feature_maps=directory / "feature_maps.safetensors",
                                  adapter=directory / "adapter")
        self.assertEqual(actual["loss"], expected["loss"])

    def refuse(self, *words, **options):
        done = run_here("export/lolcats_export", out=self.path("out"), **self.golden(**options))
        self.assert_refused(done, *words)
        self.assertEqual([path.name for path in self.directory.glob("*out*")], [])

    def test_bad_input(self):
        self.refuse("--window", window=None)
        self.refuse("--feature-map", feature_map=None)
        self.refuse("no_such", "lolcats_block", feature_maps=self.path("no_such"))
        self.refuse("config.json", "no such file", model=self.path("no_such"))
        self.refuse("shape", "feature_map_q", model=support.TINY)
        self.refuse("no adapter", lora="adapter")
        self.refuse("adapter_config.json", adapter=self.directory)
        support.shutil.copytree(support.GOLDEN / "lora", self.path("kept"))
        support.write_safetensors(self.path("kept/adapter_model.safetensors"), support.read_safetensors(
            support.GOLDEN / "lora" / "adapter_model.safetensors"), {"softmax-layers": "1"})
        self.refuse("layers 1 keep softmax attention", adapter=self.path("kept"))
        support.write_safetensors(self.path("kept/adapter_model.safetensors"), support.read_safetensors(
            support.GOLDEN / "lora" / "adapter_model.safetensors"), {"settings": '{"train-feature-maps":true}'})
        support.write_safetensors(self.path("stage_1"), support.read_safetensors(GOLDEN_MAPS), {"settings": "{}"})
        self.refuse("trained together with its feature maps", "kept/feature_maps", adapter=self.path("kept"),
                    feature_maps=self.path("stage_1"))
        arrays = support.read_safetensors(GOLDEN_MAPS)
        support.write_safetensors(self.path("maps"), {**arrays, "model.layers.1.self_attn.window_factors":
                                                      np.full((1, 4, 1, 1), np.nan)})
        self.refuse("not finite", "layers.1", feature_maps=self.path("maps"))
        del arrays["model.layers.2.self_attn.feature_map_k.mlp.layer"]
        support.write_safetensors(self.path("maps"), arrays)
        self.refuse("layers.2", "missing", feature_maps=self.path("maps"))
        support.write_safetensors(self.path("maps"), arrays, {"feature-map": "t2r"})
        self.refuse("trained with --feature-map t2r", feature_maps=self.path("maps"))
        self.path("maps").write_bytes(GOLDEN_MAPS.read_bytes()[:-100])
        self.refuse("maps", "cut off", feature_maps=self.path("maps"))
        support.shutil.copytree(support.GOLDEN / "model", self.path("model"))
        os.truncate(self.path("model") / "model.safetensors", 50000)
        self.refuse("model.safetensors", "cut off", model=self.path("model"))

    def write_header(self, name, header):
        """A safetensors file of so many zero bytes as any header here can want."""
        text = header.encode()
        self.path(name).write_bytes(struct.pack("<Q", len(text)) + text + bytes(1 << 16))
        return self.path(name)

    def test_bad_headers(self):
        tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
        for header in ("[" * 100000, "[]", "7", '{"x": 7}', json.dumps({"x": {**tensor, "shape": [10**30]}}),
                       json.dumps({"x": {**tensor, "data_offsets": [0, 8.5]}}),
                       json.dumps({"x": tensor, "__metadata__": ["window"]}),
                       json.dumps({"x": tensor, "__metadata__": {"window": 16}})):
            self.refuse("maps", "no", "safetensors file", feature_maps=self.write_header("maps", header))
        name = "model.layers.0.self_attn.feature_map_q.mlp.layer"
        integers = {name: {"dtype": "I32", "shape": [4, 16, 8], "data_offsets": [0, 2048]}}
        self.refuse("maps", name, "I32", feature_maps=self.write_header("maps", json.dumps(integers)))

    def test_bad_index(self):
        support.shutil.copytree(support.GOLDEN / "model", self.path("model"))
        (self.path("model") / "model.safetensors").unlink()
        for shards in ({"a": 1}, {"a": "x", "b": None}, {"a": ["x"]}, [], {}):
            (self.path("model") / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
            self.refuse("index.json", "no weight_map", model=self.path("model"))

    def in_two_shards(self):
        """The golden model as shards a and b, its arrays, and the names in a. Each shard has all tensors, but those
        that the index puts into the other one are of an older model."""
        directory = self.path("shards")
        support.shutil.copytree(support.GOLDEN / "model", directory)
        arrays = support.read_safetensors(directory / "model.safetensors")
        (directory / "model.safetensors").unlink()
        names = sorted(arrays)[::2]
        for shard in ("a", "b"):
            support.write_safetensors(directory / f"{shard}.safetensors", {
                name: array if (name in names) == (shard == "a") else array + 1 for name, array in arrays.items()})
        index = {name: f"{'a' if name in names else 'b'}.safetensors" for name in arrays}
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        return directory, arrays, names

    def test_tensors_come_from_the_shards_that_the_index_names(self):
        model, arrays, names = self.in_two_shards()
        written = support.read_safetensors(self.export("out", **self.golden(model=model)) / "model.safetensors")
        for name, array in arrays.items():
            self.assert_same_numbers(written[name], array, name)
        support.shutil.rmtree(self.path("out"))
        support.write_safetensors(model / "a.safetensors", {name: arrays[name] for name in names[1:]})  # b has it, too
        self.refuse("a.safetensors", f"has no tensor {names[0]}, which the index puts there", model=model)

    def test_bad_numbers(self):
        """NaN, Infinity, `true` and endless integers are numbers to Python's JSON."""
        support.shutil.copytree(support.GOLDEN / "lora", self.path("adapter"))
        support.shutil.copytree(support.GOLDEN / "model", self.path("model"))
        for directory, name, option, changes in (
                ("adapter", "adapter_config.json", "adapter", {
                    "lora_alpha": ("NaN", "Infinity", "1e999", "true", '"8"', "1" + 400 * "0"),
                    "r": ("true", "0", "4.0", "NaN"), "target_modules": ('[["q_proj"]]', '"q_proj"')}),
                ("model", "config.json", "model", {
                    "rms_norm_eps": ("NaN",), "num_hidden_layers": ("true", "0"), "head_dim": ("{}", '"8"'),
                    "num_key_value_heads": ("[2]",)})):
            file = self.path(directory) / name
            settings = json.loads(file.read_text())
            for key, texts in changes.items():
                for text in texts:
                    file.write_text(json.dumps({**settings, key: "here"}).replace('"here"', text))
                    self.refuse(name, **{option: self.path(directory)})
            file.write_text("[" * 100000)
            self.refuse(name, "not JSON", **{option: self.path(directory)})
            file.write_text(json.dumps(settings))

    def test_full_disk(self):
        done = run_tool("export/lolcats_export", out=self.path("out"), **self.golden(),
                        prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000)))
        self.assert_refused(done, str(self.path("out")), "cannot be written", "File too large", "make room")
        self.assertEqual([path.name for path in self.directory.glob("*out*")], [])

    def test_existing_directory_is_kept(self):
        self.path("here").mkdir()
        done = run_tool("export/lolcats_export", out=self.path("here"), **self.golden())
        self.assert_refused(done, "is there already")
        self.assertEqual(list(self.path("here").iterdir()), [])

    def test_memory_does_not_grow_with_the_model(self):
        """Resident memory counts mapped pages, too; so a limit on data is set instead: it counts what is allocated."""
        model = support.make_miniature(self.path("model"), layers=12, hidden=1024, dtype="f32")
        size = sum(path.stat().st_size for path in model.glob("*.safetensors"))
        rng = np.random.default_rng(1)
        settings = json.loads((model / "config.json").read_text())
        form = reference.Form("terrace", 8)
        reference.write_safetensors(self.path("maps.safetensors"), reference.random_maps(settings, form, rng))
        limit = 80 << 20
        self.assertGreater(size, 1.5 * limit)
        done = run_tool("export/lolcats_export", model=model, feature_maps=self.path("maps.safetensors"), window=8,
                        attention="terrace", feature_map="hedgehog", dtype="bf16", out=self.path("out"),
                        environment={"OPENBLAS_NUM_THREADS": "1"},
                        prepare=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)))
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])


@needs("torch")
class Import(ToolTest):
    """Checkpoints as the reference saves them."""

    OPTIONS = {"attention": "terrace", "window": 16, "feature_map": "hedgehog"}

    def save(self, name, tensors, wrap=True):
        import torch
        values = {key: torch.tensor(array) for key, array in tensors.items()}
        torch.save({"model_state_dict": values, "step": 3, "eval/loss": 0.5} if wrap else values, self.path(name))
        return self.path(name)

    def golden(self, prefix=""):
        maps = {prefix + name: array for name, array in support.read_safetensors(GOLDEN_MAPS).items()}
        lora = support.read_safetensors(support.GOLDEN / "lora" / "adapter_model.safetensors")
        return maps, {name.replace(".weight", ".default.weight"): array for name, array in lora.items()}

    def test_published_form(self):
        inputs = {"model": support.GOLDEN / "model", "tokens": support.GOLDEN / "tokens_T71.h5", "dtype": "f32"}
        expected = support.evaluate(**inputs, feature_maps=GOLDEN_MAPS, adapter=support.GOLDEN / "lora", window=16)
        for i, (prefix, wrap) in enumerate((("", True), ("base_model.model.", False))):
            maps, lora = self.golden(prefix)
            for layer in range(3):  # a whole state dict of the terrace class has these, and the teacher's
                factors = maps[f"{prefix}model.layers.{layer}.self_attn.window_factors"]
                maps[f"{prefix}model.layers.{layer}.self_attn.window_factor"] = factors
                maps[f"{prefix}model.layers.{layer}.self_attn.q_proj.weight"] = np.zeros((2, 2), np.float32)
            files = [self.save("maps.pt", maps, wrap), self.save("lora.pt", lora, wrap)]
            out = self.path(f"out{i}")
            self.run_tool("export/import_reference", *files, out=out, lora_alpha=8, **self.OPTIONS)
            actual = support.evaluate(**inputs, feature_maps=out / "feature_maps.safetensors", adapter=out / "adapter")
            self.assertEqual(actual["loss"], expected["loss"])

    def refuse(self, *words, files, **options):
        done = run_here("export/import_reference", *files, out=self.path("out"), **{**self.OPTIONS, **options})
        self.assert_refused(done, *words)
        self.assertEqual([path.name for path in self.directory.glob("*out*")], [])

    def test_what_is_refused(self):
        import torch
        maps, lora = self.golden()
        self.refuse("no such file", files=[self.path("none.pt")])
        self.refuse("--lora-alpha", files=[self.save("lora.pt", lora)])
        self.refuse("--lora-alpha", "nan", files=[self.save("lora.pt", lora)], lora_alpha="nan")
        vector = {**lora, next(iter(lora)): np.zeros(3, np.float32)}
        self.refuse("vector.pt", "matrix", files=[self.save("vector.pt", vector)], lora_alpha=8)
        self.refuse("--window", files=[self.save("maps.pt", maps)], window=None)
        self.refuse("neither feature maps nor LoRA", files=[self.save("other.pt", {"x": np.zeros(2)})])
        gap = {name: array for name, array in maps.items() if "layers.1." not in name}
        self.refuse("layer 1", files=[self.save("gap.pt", gap)])
        other = {name.replace("self_attn.q_proj", "mlp.up_proj"): array for name, array in lora.items()}
        self.refuse("up_proj", files=[self.save("other.pt", other)], lora_alpha=8)
        first = next(iter(maps))
        self.refuse("finite", files=[self.save("nan.pt", {**maps, first: np.full_like(maps[first], np.nan)})])
        self.path("text.pt").write_text("no checkpoint")
        self.refuse("tensors alone", files=[self.path("text.pt")])
        torch.save({"model_state_dict": {}, "run": RunsCode()}, self.path("code.pt"))
        self.refuse("tensors alone", files=[self.path("code.pt")])
        self.assertFalse(self.path("ran").exists())


class RunsCode:
    """Would make a file if it were unpickled."""

    def __reduce__(self):
        return os.system, ("touch ran",)


if __name__ == "__main__":
    main()
