#!/usr/bin/env python3
"""Random models of every supported kind against the float64 reference: logits, losses and gradients."""

import json
import math
import os
import unittest

import numpy as np

import reference
import support

TOLERANCE = 1e-5
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}


def config(family="llama", **changes):
    names = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"}
    return {"architectures": [names[family]], "model_type": family, "hidden_act": "silu", "hidden_size": 48,
            "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "vocab_size": 61, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False, **changes}


# Name, changes of the configuration, file type, shards, tokens in a sequence, window.
MODELS = [
    ("plain", {}, "f32", 1, 53, 5),
    ("bf16 shards", {}, "bf16", 3, 53, 16),
    ("f16 shards", {}, "f16", 2, 40, 8),
    ("tied", {"tie_word_embeddings": True}, "f32", 1, 31, 7),
    ("tied bf16", {"tie_word_embeddings": True}, "bf16", 2, 31, 7),
    ("wide heads", {"head_dim": 20}, "f32", 1, 53, 11),
    ("narrow heads", {"head_dim": 6, "num_attention_heads": 6, "num_key_value_heads": 3}, "f16", 1, 47, 13),
    ("attention bias", {"attention_bias": True}, "f32", 1, 53, 16),
    ("all biases", {"attention_bias": True, "mlp_bias": True}, "bf16", 2, 53, 16),
    ("own keys a head", {"num_key_value_heads": 4}, "f32", 1, 53, 64),
    ("one key head", {"num_key_value_heads": 1}, "f32", 1, 129, 64),
    ("no key count", {"num_key_value_heads": None}, "f32", 1, 20, 3),
    ("llama3 rope", {"rope_theta": 500000.0, "rope_scaling": LLAMA3}, "f32", 1, 130, 32),
    ("newer rope", {"rope_theta": None, "rope_parameters": {"rope_theta": 500.0, **LLAMA3}}, "f32", 1, 130, 32),
    ("newer plain rope", {"rope_theta": None, "rope_parameters": {"rope_theta": 77.0, "rope_type": "default"}},
     "f32", 1, 53, 16),
    ("other epsilon", {"rms_norm_eps": 0.1}, "f32", 1, 17, 5),
    ("one layer", {"num_hidden_layers": 1}, "f32", 1, 1 + 2 * 8, 8),
]
MISTRALS = [
    ("mistral, full attention", {"sliding_window": None}, "bf16", 2, 53, 16),
    ("mistral, large window", {"sliding_window": 53}, "f32", 1, 53, 16),
]


class ModelTest(support.TestCase):
    """A test with a random model in self.directory."""

    def setUp(self):
        super().setUp()
        os.environ["OMP_NUM_THREADS"] = "1"  # for such small models a second thread costs more than it gives

    def make(self, changes, family="llama", dtype="f32", shards=1, length=53, sequences=3, seed=1):
        self.rng = np.random.default_rng(seed)
        settings = config(family, **changes)
        settings["num_key_value_heads"] = settings["num_key_value_heads"] or settings["num_attention_heads"]
        written = {key: value for key, value in settings.items() if value is not None or key == "sliding_window"}
        if changes.get("num_key_value_heads", 0) is None:
            del written["num_key_value_heads"]
        directory = self.path("model")
        support.shutil.rmtree(directory, ignore_errors=True)
        self.model = reference.make_model(directory, settings, self.rng, dtype, shards)
        (directory / "config.json").write_text(json.dumps({**written, "torch_dtype": reference.STORED[dtype][1]}))
        self.tokens = self.rng.integers(0, settings["vocab_size"], (sequences, length))
        self.labels = np.where(self.rng.random(self.tokens.shape) < 0.3, -100, self.tokens)
        support.write_tokens(self.path("tokens.h5"), self.tokens, self.labels)
        self.inputs = {"model": directory, "tokens": self.path("tokens.h5"), "dtype": "f32"}

    def make_maps(self, form, metadata=None):
        self.form = form
        self.maps = reference.random_maps(self.model.config, form, self.rng)
        reference.write_safetensors(self.path("maps.safetensors"), self.maps, metadata=metadata)
        return {"attention": form.kind, "window": form.window, "feature_map": form.map,
                "affine_attention_factors": form.affine}

    def make_adapter(self, rank=3, alpha=5.0, modules=("q_proj", "v_proj", "o_proj")):
        arrays, shapes = {}, reference.weight_shapes(self.model.config)
        for layer in range(self.model.config["num_hidden_layers"]):
            for module in modules:
                outputs, inputs = shapes[f"model.layers.{layer}.self_attn.{module}.weight"]
                stem = f"base_model.model.model.layers.{layer}.self_attn.{module}."
                for side, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
                    values = 0.3 * self.rng.standard_normal(shape)
                    arrays[f"{stem}lora_{side}.weight"] = values.astype(np.float32)
        directory = self.path("adapter")
        directory.mkdir(exist_ok=True)
        reference.write_safetensors(directory / "adapter_model.safetensors", arrays)
        (directory / "adapter_config.json").write_text(json.dumps(
            {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": list(modules), "bias": "none"}))
        return reference.Adapter(arrays, alpha / rank)

    def check(self, expected, tolerance, what, **options):
        """Logits and loss of lolcats_eval."""
        file = self.path("logits.h5")
        result = support.evaluate(**{**self.inputs, **options}, save_logits=file)
        self.assert_close(support.read_hdf5(file)["logits"], expected, tolerance, what)
        self.assert_close(result["loss"], reference.next_token_loss(expected, self.labels), tolerance, what)
        self.assertEqual(result["tokens"], (self.labels[:, 1:] != -100).sum())
        self.assert_close(result["perplexity"], math.exp(result["loss"]), 1e-12)

    def check_derivatives(self, loss, arrays, gradients, what, tolerance=2e-4, elements=3):
        """Some elements of every gradient against difference quotients of the reference."""
        self.assertEqual(sorted(gradients), sorted(arrays), what)
        for name, gradient in gradients.items():
            self.assertEqual(gradient.shape, np.shape(arrays[name]), name)
            self.assertTrue(np.isfinite(gradient).all(), name)
            size = np.sqrt((gradient**2).mean())
            self.assertGreater(size, 0, f"{what} {name}")
            for _ in range(elements):
                index = tuple(self.rng.integers(0, extent) for extent in gradient.shape)
                expected = reference.difference_quotient(loss, arrays, name, index)
                error = abs(gradient[index] - expected)
                self.assertTrue(error <= tolerance * (abs(expected) + size),
                                f"{what} {name}{index}: {gradient[index]:.7g}, by differences {expected:.7g}")


class Logits(ModelTest):
    def test_teacher_and_student(self):
        families = [("llama", model) for model in MODELS] + [("mistral", model) for model in MISTRALS]
        for family, (name, changes, dtype, shards, length, window) in families:
            with self.subTest(name):
                self.make(changes, family, dtype, shards, length)
                self.check(reference.logits(self.model, self.tokens), TOLERANCE, name, attention="teacher",
                           micro_batch=2)
                kind = ("terrace", "sliding")[window % 2]
                options = self.make_maps(reference.Form(kind, window))
                adapter = self.make_adapter()
                expected = reference.logits(self.model, self.tokens, self.form, self.maps, adapter)
                self.check(expected, TOLERANCE, name, **options, feature_maps=self.path("maps.safetensors"),
                           adapter=self.path("adapter"))

    def test_feature_maps(self):
        self.make({})
        for number, name in enumerate(support.feature_maps()):
            for kind in ("terrace", "sliding", "none"):
                form = reference.Form(kind, 5 + number, name, affine=number % 2 == 1)
                options = self.make_maps(form)
                expected = reference.logits(self.model, self.tokens, form, self.maps)
                # A query all of whose features are products of small numbers has them with larger relative errors.
                tolerance = 3 * TOLERANCE if name == "dpfp" else TOLERANCE
                self.check(expected, tolerance, f"{name} {kind}", **options,
                           feature_maps=self.path("maps.safetensors"))

    def test_feature_dim(self):
        self.make({})
        for width in (1, 5, 40):
            options = self.make_maps(reference.Form("terrace", 9, feature_dim=width))
            expected = reference.logits(self.model, self.tokens, self.form, self.maps)
            self.check(expected, TOLERANCE, f"f = {width}", **options, feature_maps=self.path("maps.safetensors"))

    def test_sequences_within_the_window_are_pure_softmax(self):
        self.make({}, length=17)
        for kind, window in (("terrace", 9), ("sliding", 17)):
            options = self.make_maps(reference.Form(kind, window))
            self.check(reference.logits(self.model, self.tokens), TOLERANCE, kind, **options,
                       feature_maps=self.path("maps.safetensors"))

    @unittest.skipIf(support.has_bf16_products(), "this processor has bf16 products")
    def test_sixteen_bit_products_are_refused_where_there_are_none(self):
        self.make({}, dtype="bf16")
        self.assert_fails(support.attempt("eval", **{**self.inputs, "dtype": "bf16"}, gemm="bf16", attention="teacher"),
                          "--gemm bf16", "--gemm f32")

    def test_sixteen_bit_arithmetic_is_near(self):
        self.make({}, dtype="bf16")
        options = self.make_maps(reference.Form("terrace", 8))
        teacher = reference.logits(self.model, self.tokens)
        student = reference.logits(self.model, self.tokens, self.form, self.maps)
        for gemm in ("f32", "bf16") if support.has_bf16_products() else ("f32",):
            self.check(teacher, 0.03, gemm, dtype="bf16", gemm=gemm, attention="teacher")
            self.check(student, 0.03, gemm, dtype="bf16", gemm=gemm, feature_maps=self.path("maps.safetensors"),
                       **options)

    def test_eight_bit_weights_and_products(self):
        self.make({})  # f32 files: with bf16 ones some quotients lie in the middle of two numbers, and go either way
        student = {**self.make_maps(reference.Form("terrace", 8)), "feature_maps": self.path("maps.safetensors")}
        for gemm, tolerance in (("exact", TOLERANCE), ("f32", TOLERANCE), ("fp8", 1e-3)):  # 0.07 apart from one another
            model = reference.Float8Model(self.model, activations=gemm == "fp8")
            for form, options in (((), {"attention": "teacher"}), ((self.form, self.maps), student)):
                self.check(reference.logits(model, self.tokens, *form), tolerance, gemm, dtype="fp8", gemm=gemm,
                           **options)

    def test_eight_bit_products_need_eight_bit_weights(self):
        self.make({}, dtype="bf16")
        for dtype in ("bf16", "f32"):
            done = support.attempt("eval", 2, 1, **{**self.inputs, "dtype": dtype}, gemm="fp8", attention="teacher")
            self.assert_fails(done, "--gemm fp8", "--dtype fp8")


class TransferGradients(ModelTest):
    """Stage 1 against difference quotients."""

    def run_block(self, form, **options):
        settings = self.make_maps(form)
        support.run("block", **{**self.inputs, **settings}, init_feature_maps=self.path("maps.safetensors"), steps=1,
                    work=self.path("work"), dump_gradients=self.path("gradients.h5"), fresh=True, **options)
        return support.read_hdf5(self.path("gradients.h5"))

    def check_transfer(self, form, xent):
        what = f"{form.map} {form.kind} xent {xent}"
        gradients = self.run_block(form, xent_factor=xent, mse_factor=10)
        inputs = reference.attention_inputs(self.model, self.tokens)

        def layer_losses(maps):
            return [reference.transfer_loss(form, maps, layer, qkv, 10, xent) for layer, qkv in enumerate(inputs)]

        losses = layer_losses(self.maps)
        self.assert_close(gradients.pop("layer_losses"), losses, TOLERANCE, what)
        self.assert_close(gradients.pop("loss"), np.mean(losses), TOLERANCE, what)
        self.check_derivatives(lambda maps: np.mean(layer_losses(maps)), self.maps, gradients, what)

    def test_every_map(self):
        self.make({"head_dim": 10, "attention_bias": True}, length=43, sequences=2)
        for number, name in enumerate(support.feature_maps()):
            for kind in ("terrace", "sliding", "none"):
                for xent in (0, 1) if kind != "none" else (0,):
                    self.check_transfer(reference.Form(kind, 5 + number, name, affine=number % 2 == 0), xent)

    def test_cross_entropy_without_a_window(self):
        self.make({}, length=29, sequences=2)
        self.check_transfer(reference.Form("none", 8), 1)

    def test_tied_maps(self):
        self.make({}, length=43, sequences=2)
        for name in ("hedgehog", "t2r"):
            form = reference.Form("terrace", 6, name)
            gradients = self.run_block(form, tie_feature_maps=True)
            inputs = reference.attention_inputs(self.model, self.tokens)
            own = {key: values for key, values in self.maps.items() if "feature_map_k" not in key}

            def loss(maps, form=form, inputs=inputs):
                both = {**maps, **{key.replace("map_q", "map_k"): values for key, values in maps.items()}}
                return np.mean([reference.transfer_loss(form, both, layer, qkv) for layer, qkv in enumerate(inputs)])

            self.assert_close(gradients.pop("loss"), loss(own), TOLERANCE, name)
            gradients.pop("layer_losses")
            self.check_derivatives(loss, own, gradients, f"tied {name}")
            written = support.read_feature_maps(self.path("work"))
            for key in own:
                if "feature_map_q" in key:
                    self.assert_same_numbers(written[key.replace("map_q", "map_k")], written[key], key)


class LowRankGradients(ModelTest):
    """Stage 2 through the whole model, with and without training the feature maps, against difference quotients."""

    def test_adapter_and_feature_maps(self):
        cases = [("terrace", "hedgehog", {"tie_word_embeddings": True}), ("sliding", "t2r", {"attention_bias": True}),
                 ("none", "pos_elu", {"head_dim": 8}), ("terrace", "exp_dim", {"num_key_value_heads": 1})]
        for kind, name, changes in cases:
            self.make(changes, length=37, sequences=2)
            form = reference.Form(kind, 6, name)
            options = self.make_maps(form)
            adapter = self.make_adapter(modules=("q_proj", "k_proj", "v_proj", "o_proj"))
            support.run("lora", **{**self.inputs, **options}, init_feature_maps=self.path("maps.safetensors"),
                        init_adapter=self.path("adapter"), steps=1, train_feature_maps=True, work=self.path("work"),
                        dump_gradients=self.path("gradients.h5"), fresh=True)
            gradients = support.read_hdf5(self.path("gradients.h5"))

            def loss(arrays, form=form, scale=adapter.scale):
                values = reference.logits(self.model, self.tokens, form, arrays, reference.Adapter(arrays, scale))
                return reference.next_token_loss(values, self.labels)

            arrays = {**self.maps, **adapter.arrays}
            self.assert_close(gradients.pop("loss"), loss(arrays), TOLERANCE, name)
            self.check_derivatives(loss, arrays, gradients, f"{kind} {name}", elements=2)


class Refused(ModelTest):
    def test_sequences_longer_than_the_sliding_window(self):
        self.make({"sliding_window": 52}, "mistral")
        self.assert_fails(support.attempt("eval", **self.inputs, attention="teacher"), "sliding_window")

    def test_missing_bias(self):
        self.make({})
        file = self.path("model") / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "attention_bias": True}))
        self.assert_fails(support.attempt("eval", **self.inputs, attention="teacher"), "q_proj.bias")


if __name__ == "__main__":
    unittest.main()
