#!/usr/bin/env python3
"""Training of the tiny teacher's students: losses fall, and every setting of the training does what it says.

The optimiser's first step and the plateau schedule are computed again here from the logs and the dumped gradients.
"""

import json
import os
import tempfile
import unittest
from pathlib import Path

import numpy as np

import reference
import support
from support import TINY

LENGTH, WINDOW = 80, 16
FAR_TOO_HIGH = 5.0  # a learning rate at which losses without a window go up and down


def setUpModule():
    """A corpus, and feature maps to start from."""
    global SHARED, TOKENS, MAPS
    SHARED = tempfile.TemporaryDirectory(prefix="lolcats-training-")
    TOKENS = support.make_corpus(Path(SHARED.name) / "tokens.h5", sequences=20, length=LENGTH, seed=5)
    MAPS = Path(SHARED.name) / "maps.safetensors"
    config = json.loads((TINY / "config.json").read_text())
    form = reference.Form("terrace", WINDOW, feature_dim=8)
    reference.write_safetensors(MAPS, reference.random_maps(config, form, np.random.default_rng(3)))


def tearDownModule():
    SHARED.cleanup()


def without_speed(lines):
    return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in lines]


class TrainingTest(support.TestCase):
    def setUp(self):
        super().setUp()
        os.environ["OMP_NUM_THREADS"] = "1"  # for such small models a second thread costs more than it gives
        self.inputs = {"model": TINY, "tokens": TOKENS, "dtype": "f32", "gemm": "f32", "window": WINDOW,
                       "sequences": 8, "work": self.path("work")}
        self.block_log = self.path("work/transfer/block_00.jsonl")

    def block(self, **options):
        support.run("block", **{**self.inputs, "init_feature_maps": MAPS, **options})
        return support.read_log(options.get("work", self.path("work")) / "transfer" / "block_00.jsonl")

    def lora(self, **options):
        support.run("lora", **{**self.inputs, "feature_maps": MAPS, **options})
        return support.read_log(options.get("work", self.path("work")) / "lora" / "lora.jsonl")

    def maps(self):
        return support.read_feature_maps(self.path("work"))

    def evaluate(self, **options):
        return support.evaluate(**{**self.inputs, **options})


class Transfer(TrainingTest):
    def test_lowers_the_loss_of_every_layer(self):
        for kind, xent in (("terrace", 0), ("sliding", 1), ("none", 0)):
            lines = self.block(attention=kind, xent_factor=xent, steps=25, clip=0)
            first, last = (np.array(line["layer_losses"]) for line in (lines[0], lines[-1]))
            self.assertTrue((last < 0.97 * first).all(), f"{kind}: {first} became {last}")
            self.assertLess(last.mean(), 0.75 * first.mean())

    def test_lowers_the_loss_of_sequences_held_out(self):
        lines = self.block(steps=20, sequences=20, validation=8, eval_every=10)
        losses = [line["eval_loss"] for line in lines if "eval_loss" in line]
        self.assertEqual(len(losses), 3)
        self.assertLess(losses[-1], 0.8 * losses[0])
        self.assertEqual(len([line for line in lines if "grad_norm" in line]), 20)

    def test_epochs(self):
        lines = self.block(epochs=2, sequences=7, validation=2, batch_size=2)
        self.assertEqual([line["step"] for line in lines if "grad_norm" in line], list(range(6)))

    def test_keeps_the_best_of_validation(self):
        # Without memory of earlier gradients every step has the same size, and the loss goes up and down.
        lines = self.block(attention="none", steps=8, validation=3, eval_every=1, lr=1, beta1=0, beta2=0,
                           schedule="constant", clip=0)
        losses = [line["eval_loss"] for line in lines if "eval_loss" in line]
        best = min(losses)
        self.assertLess(best, min(losses[0], losses[-1]))
        self.assertEqual([line["best"] for line in lines if "eval_loss" in line], list(np.minimum.accumulate(losses)))
        again = self.block(attention="none", steps=1, validation=3, init_feature_maps=self.path("work/transfer"),
                           work=self.path("again"))
        self.assertEqual(again[0]["eval_loss"], best)

    def test_without_validation_keeps_the_last(self):
        first = self.block(steps=2)
        self.assertNotIn("eval_loss", json.dumps(first))
        again = self.block(steps=1, init_feature_maps=self.path("work/transfer"), work=self.path("again"))
        third = self.block(steps=3, work=self.path("third"))
        self.assertEqual(again[0]["loss"], third[2]["loss"])

    def test_a_loss_that_is_not_finite_is_an_error(self):
        done = support.attempt("block", **{**self.inputs, "steps": 60, "lr": 1e37, "clip": 0, "schedule": "constant"})
        self.assert_fails(done, "--lr")
        self.assertFalse(list(self.path("work/transfer").glob("*.safetensors")))


class WhatLoraStartsFrom(TrainingTest):
    def first_loss(self, **options):
        return self.lora(**{"steps": 1, "feature_maps": None, "train_feature_maps": True, **options})[0]["loss"]

    def test_the_robust_recipe_goes_on_with_the_maps_of_stage_1(self):
        self.block(steps=3, lr=0.1)
        recipe = self.first_loss(recipe="robust", train_feature_maps=None)
        self.assertTrue(self.path("work/lora/feature_maps.safetensors").exists())
        self.assertEqual(recipe, self.first_loss(feature_maps=self.path("work/transfer"), work=self.path("named")))
        self.assertNotEqual(recipe, self.first_loss(work=self.path("scratch")), "maps that were not trained before")
        self.first_loss(train_feature_maps=None)
        self.assertFalse(self.path("work/lora/feature_maps.safetensors").exists(), "which the new adapter is not for")

    def test_an_adapter_is_used_with_the_maps_trained_along_with_it(self):
        self.block(steps=1)
        lora = self.path("work/lora")
        self.lora(steps=1, train_feature_maps=True)
        self.evaluate(adapter=lora, feature_maps=lora / "feature_maps.safetensors")
        for maps in (self.path("work/transfer"), None):
            done = support.attempt("eval", **{**self.inputs, "adapter": lora, "feature_maps": maps})
            self.assert_fails(done, f"--feature-maps {lora}/feature_maps.safetensors")
        self.lora(steps=1)
        self.evaluate(adapter=lora, feature_maps=self.path("work/transfer"))

    def warnings_of_other_maps(self, maps):
        """How often each program warns, with the adapter in WORK."""
        self.path("prompts.jsonl").write_text('{"tokens": [1, 2]}\n', encoding="utf-8")
        generation = {key: self.inputs[key] for key in ("model", "dtype", "gemm", "window")}
        generation |= {"prompts": self.path("prompts.jsonl"), "max_new_tokens": 1}
        counts = []
        for program, ranks, options in (("eval", 0, self.inputs), ("eval", 2, self.inputs),
                                        ("generate", 0, generation)):
            done = support.attempt(program, ranks, **{**options, "adapter": self.path("work/lora"),
                                                      "feature_maps": maps})
            self.assertEqual(done.returncode, 0, done.stderr[-2000:])
            counts.append(done.stderr.count("was trained with other feature maps"))
        return counts

    def test_other_maps_than_an_adapter_was_trained_with_are_told(self):
        self.block(steps=1)
        self.lora(steps=1)
        self.assertEqual(self.warnings_of_other_maps(MAPS), [0, 0, 0])
        for maps in (self.path("work/transfer"), None):
            self.assertEqual(self.warnings_of_other_maps(maps), [1, 1, 1])
        self.lora(steps=1, train_feature_maps=True)
        self.assertEqual(self.warnings_of_other_maps(self.path("work/lora/feature_maps.safetensors")), [0, 0, 0])

    def test_the_robust_recipe_asks_for_stage_1(self):
        done = support.attempt("lora", **self.inputs, recipe="robust", steps=1)
        self.assert_fails(done, "run lolcats_block first")

    def test_an_adapter_to_evaluate_is_of_no_matter(self):
        self.assertEqual(self.first_loss(adapter=self.path("not_yet")), self.first_loss(work=self.path("again")))


class Optimiser(TrainingTest):
    def first_step(self, clip, decay, epsilon=1e-3, lr=0.02):
        """The first step by hand: the bias corrections make it lr * g / (|g| + epsilon)."""
        file = self.path("gradients.h5")
        lines = self.block(steps=1, clip=clip, weight_decay=decay, epsilon=epsilon, lr=lr, dump_gradients=file)
        gradients = {name: values for name, values in support.read_hdf5(file).items() if name.startswith("model.")}
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
        self.assert_close(lines[0]["grad_norm"], norm, 1e-12, "grad_norm")
        scale = min(1, clip / (norm + 1e-6)) if clip else 1
        before, after = support.read_safetensors(MAPS), self.maps()
        self.assertEqual(sorted(after), sorted(gradients))
        for name, gradient in gradients.items():
            step = -lr * scale * gradient / (np.abs(scale * gradient) + epsilon) - lr * decay * before[name]
            self.assert_close(np.float64(after[name]) - before[name], step, 1e-4, f"clip {clip}, decay {decay} {name}")
        return norm

    def test_first_step(self):
        norm = self.first_step(0, 0)
        for clip in (0.01 * norm, 0.5 * norm, 2 * norm):
            self.first_step(clip, 0)
        self.first_step(0.5 * norm, 0.3)

    def test_accumulation(self):
        runs = []
        for size in (1, 3, 4, 8):
            file = self.path(f"{size}.h5")
            self.block(steps=1, micro_batch=size, dump_gradients=file, gemm="exact", xent_factor=1)
            runs.append(support.read_hdf5(file))
        for gradients in runs[1:]:
            self.assert_all_close(gradients, runs[0], 1e-6)

    def test_accumulation_in_stage_2(self):
        runs = []
        for size in (1, 4):
            file = self.path(f"{size}.h5")
            self.lora(steps=1, micro_batch=size, dump_gradients=file, gemm="exact", train_feature_maps=True)
            runs.append(support.read_hdf5(file))
        self.assert_all_close(runs[1], runs[0], 1e-6)

    def test_a_batch_is_the_mean_of_its_halves(self):
        runs = {}
        halves = self.path("halves.h5")
        with support.h5py.File(TOKENS, "r") as file:
            support.write_tokens(halves, file["tokens"][4:8], file["labels"][4:8])
        for name, options in (("all", {}), ("first", {"sequences": 4}), ("second", {"sequences": 4, "tokens": halves})):
            file = self.path(f"{name}.h5")
            self.block(steps=1, dump_gradients=file, gemm="exact", work=self.path(name), **options)
            runs[name] = support.read_hdf5(file)
        mean = {name: (values + runs["second"][name]) / 2 for name, values in runs["first"].items()}
        self.assert_all_close(runs["all"], mean, 1e-6)


class Schedule(TrainingTest):
    def expected_rates(self, losses, rate, patience, factor, least):
        """Rates after each evaluation, as torch.optim.lr_scheduler.ReduceLROnPlateau gives them."""
        best, bad, rates = np.inf, 0, []
        for loss in losses:
            if loss < best * (1 - 1e-4):
                best, bad = loss, 0
            else:
                bad += 1
            if bad > patience:
                rate, bad = max(rate * factor, least), 0
            rates.append(rate)
        return rates

    def check(self, lines, patience, factor=0.1, least=1e-5, rate=FAR_TOO_HIGH):
        losses = [line["eval_loss"] for line in lines if "eval_loss" in line][1:]  # that of the start does not count
        used = [line["lr"] for line in lines if "grad_norm" in line]
        self.assertEqual(len(used), len(losses))
        expected = [rate, *self.expected_rates(losses, rate, patience, factor, least)[:-1]]
        self.assert_close(used, expected, 1e-12, "learning rates")
        return used

    def test_rate_falls_on_a_plateau(self):
        for patience in (0, 1):
            lines = self.block(attention="none", steps=12, validation=3, eval_every=1, lr=FAR_TOO_HIGH, clip=0,
                               plateau_patience=patience, plateau_factor=0.3)
            self.assertLess(min(self.check(lines, patience, 0.3)), FAR_TOO_HIGH)

    def test_floor(self):
        lines = self.block(attention="none", steps=12, validation=3, eval_every=1, lr=FAR_TOO_HIGH, clip=0,
                           plateau_patience=0, plateau_factor=0.5, min_lr=4)
        self.assertEqual(min(self.check(lines, 0, 0.5, 4)), 4)

    def test_constant(self):
        lines = self.block(steps=6, validation=3, eval_every=1, lr=0.5, schedule="constant", plateau_patience=0)
        self.assertEqual({line["lr"] for line in lines if "lr" in line}, {0.5})

    def test_without_validation_the_training_loss_counts(self):
        """At this rate nothing changes: every epoch of two steps is a plateau after the first."""
        for patience in (0, 1, 2):
            lines = self.block(batch_size=4, steps=12, eval_every=2, lr=1e-20, min_lr=0, plateau_patience=patience)
            losses = [np.mean([line["loss"] for line in lines[i:i + 2]]) for i in range(0, 12, 2)]
            rates = [1e-20, *self.expected_rates(losses, 1e-20, patience, 0.1, 0)]
            self.assert_close([line["lr"] for line in lines], [rates[i // 2] for i in range(12)], 1e-12)
            self.assert_close(lines[-1]["lr"], 1e-20 * 0.1**(4 // (patience + 1)), 1e-12)

    def test_a_rate_below_the_floor_stays(self):
        lines = self.block(steps=4, eval_every=1, lr=1e-20, min_lr=1e-5, plateau_patience=0)
        self.assertEqual({line["lr"] for line in lines}, {1e-20})

    def test_lora(self):
        lines = self.lora(steps=8, validation=3, eval_every=1, lr=FAR_TOO_HIGH, plateau_patience=0)
        self.assertLess(min(self.check(lines, 0)), FAR_TOO_HIGH)


class Shuffle(TrainingTest):
    def losses(self, **options):
        return without_speed(self.block(steps=6, batch_size=2, lr=1e-9, **options))

    def test_order(self):
        plain, again = self.losses(seed=1), self.losses(seed=2)
        self.assertEqual(plain, again)  # the seed has nothing else to decide here
        one, two = self.losses(seed=1, shuffle=True), self.losses(seed=2, shuffle=True)
        self.assertEqual(one, self.losses(seed=1, shuffle=True))
        orders = [[line["loss"] for line in lines] for lines in (plain, one, two)]
        self.assertEqual(len({tuple(order) for order in orders}), 3)
        self.assert_close(plain[4]["loss"], plain[0]["loss"], 1e-6, "the second epoch repeats the first")
        for order in orders:  # an epoch sees every sequence once
            self.assert_close(np.mean(order[:4]), np.mean(orders[0][:4]), 1e-5)
        self.assertNotEqual(orders[1][:2], orders[1][4:])

    def test_seed_of_the_initial_maps(self):
        starts = {}
        for seed in (1, 1, 2):
            support.run("block", **self.inputs, steps=1, seed=seed, lr=1e-9)
            starts.setdefault(seed, []).append(self.maps())
        name = reference.student_name(0, "feature_map_q.mlp.layer")
        self.assert_same_numbers(starts[1][0][name], starts[1][1][name])
        self.assertGreater(support.relative_rms(starts[2][0][name], starts[1][0][name]), 0.5)
        _, inputs, width = starts[1][0][name].shape
        self.assertLessEqual(np.abs(starts[1][0][name]).max(), np.sqrt(6 / (inputs * width)) + 1e-6)
        factors = starts[1][0][reference.student_name(0, "window_factors")]
        self.assert_close(1 / (1 + np.exp(-factors)), np.full(factors.shape, 0.1), 1e-6)

    def test_identity(self):
        support.run("block", **self.inputs, steps=1, lr=1e-30, feature_map_init="identity", clip=0)
        for name, values in self.maps().items():
            if "feature_map" in name:
                self.assert_close(values, np.broadcast_to(np.eye(*values.shape[1:]), values.shape), 1e-25, name)


class LowRank(TrainingTest):
    def test_lowers_the_loss(self):
        lines = self.lora(steps=15, lr=3e-3)
        self.assertLess(lines[-1]["loss"], 0.95 * lines[0]["loss"])

    def test_evaluation_agrees_with_training(self):
        """The loss of what was written is what training goes on from."""
        lines = self.lora(steps=4, lr=3e-3, train_feature_maps=True, gemm="exact")
        written = {"feature_maps": self.path("work/lora/feature_maps.safetensors"), "adapter": self.path("work/lora")}
        swapped, adapted = self.evaluate(feature_maps=MAPS, gemm="exact"), self.evaluate(**written, gemm="exact")
        self.assert_close(swapped["loss"], lines[0]["loss"], 1e-6, "B = 0 changes nothing")
        longer = self.lora(steps=5, lr=3e-3, train_feature_maps=True, gemm="exact")
        self.assert_close(adapted["loss"], longer[4]["loss"], 1e-6)
        maps = support.read_safetensors(self.path("work/lora/feature_maps.safetensors"))
        start = support.read_safetensors(MAPS)
        for name, values in start.items():
            self.assertGreater(support.relative_rms(maps[name], values), 0, f"{name} was not trained")

    def test_frozen_maps_are_not_written(self):
        self.lora(steps=1)
        self.assertFalse(self.path("work/lora/feature_maps.safetensors").exists())

    def test_keeps_the_best_of_validation(self):
        lines = self.lora(steps=6, validation=3, eval_every=1, lr=0.3, schedule="constant")
        losses = [line["eval_loss"] for line in lines if "eval_loss" in line]
        self.assertLess(min(losses), losses[-1])
        with support.h5py.File(TOKENS, "r") as file:
            support.write_tokens(self.path("held_out.h5"), file["tokens"][:3], file["labels"][:3])
        result = self.evaluate(tokens=self.path("held_out.h5"), sequences=3, feature_maps=MAPS,
                               adapter=self.path("work/lora"))
        self.assert_close(result["loss"], min(losses), 1e-6)

    def test_options_reach_the_adapter(self):
        self.lora(steps=1, lora_rank=5, lora_alpha=7, lora_dropout=0.25, lora_modules=["v_proj", "q_proj"])
        config = json.loads(self.path("work/lora/adapter_config.json").read_text())
        self.assertEqual((config["peft_type"], config["r"], config["lora_alpha"], config["lora_dropout"]),
                         ("LORA", 5, 7, 0.25))
        self.assertEqual(sorted(config["target_modules"]), ["q_proj", "v_proj"])
        arrays = support.read_safetensors(self.path("work/lora/adapter_model.safetensors"))
        self.assertEqual({name.split(".")[6] for name in arrays}, {"q_proj", "v_proj"})
        self.assertEqual({array.shape[0] if "lora_A" in name else array.shape[1] for name, array in arrays.items()},
                         {5})

    def test_alpha_scales_the_update(self):
        """At the start B = 0: the loss does not depend on alpha, and B's gradient is proportional to it."""
        runs = []
        for alpha in (4, 12):
            file = self.path("gradients.h5")
            self.lora(steps=1, lora_alpha=alpha, dump_gradients=file)
            runs.append(support.read_hdf5(file))
        self.assertEqual(runs[0]["loss"], runs[1]["loss"])
        for name, gradient in runs[0].items():
            if "lora_B" in name:
                self.assert_close(runs[1][name], 3 * gradient, 1e-5, name)
            elif "lora_A" in name:
                self.assertFalse(gradient.any(), name)

    def test_dropout_only_in_training(self):
        runs = []
        for dropout in (0, 0.5):
            runs.append(self.lora(steps=3, validation=2, eval_every=2, lr=1e-2, lora_dropout=dropout))
        self.assertEqual(runs[0][0]["eval_loss"], runs[1][0]["eval_loss"])
        self.assertEqual(runs[0][1]["loss"], runs[1][1]["loss"])  # B = 0: nothing to drop yet
        self.assertNotEqual(runs[0][2]["loss"], runs[1][2]["loss"])
        again = self.lora(steps=3, validation=2, eval_every=2, lr=1e-2, lora_dropout=0.5)
        self.assertEqual(without_speed(again), without_speed(runs[1]))
        other = self.lora(steps=3, validation=2, eval_every=2, lr=1e-2, lora_dropout=0.5, seed=1)
        self.assertNotEqual(without_speed(other), without_speed(runs[1]))

    def test_kept_activations_change_no_byte(self):
        """Of none or some of a rank's two layers, with two micro-batches under way in the first pipeline stage."""
        adapters = []
        for memory in (0, 1e6, 2e6, 1e9):
            work = self.path(f"kept_{memory:g}")
            support.run("lora", ranks=2, **{**self.inputs, "feature_maps": MAPS, "work": work, "steps": 2, "lr": 1e-2,
                                            "block_layers": 2, "activation_memory": memory, "lora_dropout": 0.25})
            adapters.append((work / "lora" / "adapter_model.safetensors").read_bytes())
        for adapter in adapters[1:]:
            self.assertEqual(adapter, adapters[0])

    def test_unlabelled_tokens_do_not_count(self):
        """Labels of the answers only; the loss is the mean over them."""
        answers = support.make_corpus(self.path("answers.h5"), sequences=8, length=LENGTH, seed=5, labels="answers")
        labels = support.read_hdf5(answers)["labels"]
        result = self.evaluate(tokens=answers, attention="teacher")
        self.assertEqual(result["tokens"], (labels[:, 1:] != -100).sum())
        self.assertEqual(result["spans"] * 2, result["tokens"])
        lines = self.lora(tokens=answers, steps=1)
        self.assert_close(lines[0]["loss"], self.evaluate(tokens=answers, feature_maps=MAPS)["loss"], 1e-6)


class Metadata(TrainingTest):
    """Feature-map files say how they were trained, and what reads them takes it from there."""

    def setUp(self):
        super().setUp()
        del self.inputs["window"]
        self.form = {"attention": "sliding", "window": 8, "feature_map": "exp_dim", "feature_dim": 6,
                     "affine_attention_factors": True}
        support.run("block", **self.inputs, **self.form, steps=1)
        self.trained = self.path("work/transfer")

    def test_settings_are_adopted(self):
        adopted = self.evaluate(feature_maps=self.trained)
        self.assertEqual(adopted["loss"], self.evaluate(feature_maps=self.trained, **self.form)["loss"])
        self.assertNotEqual(adopted["loss"], self.evaluate(feature_maps=self.trained, window=16)["loss"])
        self.assertNotEqual(adopted["loss"], self.evaluate(feature_maps=self.trained, attention="terrace")["loss"])
        self.assert_close(self.lora(feature_maps=None, steps=1)[0]["loss"], adopted["loss"], 1e-6)

    def test_adopted_settings_are_handed_on(self):
        self.lora(feature_maps=None, init_feature_maps=self.trained, steps=1, train_feature_maps=True)
        metadata = support.safetensors_header(self.path("work/lora/feature_maps.safetensors"))["__metadata__"]
        for key, value in self.form.items():
            self.assertEqual(metadata[key.replace("_", "-")], str(value).lower(), key)

    def test_contradictions_are_errors(self):
        for key, value in (("feature_map", "pos_elu"), ("feature_dim", 5)):
            for program in ("eval", "lora"):
                done = support.attempt(program, **{**self.inputs, "feature_maps": self.trained, key: value})
                self.assert_fails(done, "--" + key.replace("_", "-"))

    def test_tied_maps_stay_tied(self):
        self.block(init_feature_maps=None, steps=1, tie_feature_maps=True)
        self.lora(feature_maps=self.trained, steps=1, train_feature_maps=True)
        maps = support.read_safetensors(self.path("work/lora/feature_maps.safetensors"))
        for layer in range(4):
            query, key = (maps[reference.student_name(layer, f"feature_map_{x}.mlp.layer")] for x in "qk")
            self.assertTrue(np.array_equal(query, key), f"layer {layer}")

    def test_without_a_window_there_is_none_to_evaluate(self):
        work = self.path("windowless")
        self.block(init_feature_maps=None, attention="none", steps=1, work=work)
        for branch in ("window", "window+sinks"):
            done = support.attempt("eval", **self.inputs, feature_maps=work / "transfer", branch=branch)
            self.assert_fails(done, f"--branch {branch}", "has no window")

    def test_teacher_takes_no_maps(self):
        done = support.attempt("eval", **self.inputs, feature_maps=self.trained, attention="teacher")
        self.assert_fails(done, "--feature-maps")

    def test_missing_layers_are_errors(self):
        arrays = support.read_safetensors(self.trained / "block_00.safetensors")
        name = reference.student_name(2, "feature_map_k.mlp.layer")
        del arrays[name]
        reference.write_safetensors(self.path("maps.safetensors"), arrays)
        done = support.attempt("eval", **self.inputs, **self.form, feature_maps=self.path("maps.safetensors"))
        self.assert_fails(done, name)


if __name__ == "__main__":
    unittest.main()
