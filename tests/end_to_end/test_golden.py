#!/usr/bin/env python3
"""The programs against golden values of a tiny Llama: logits, losses, hidden states and gradients in float32.

The values are described in tests/data/golden/README.md. A bound of 1e-5 relative RMS holds everywhere.
"""

import unittest

import support
from support import GOLDEN

TOLERANCE = 1e-5
KINDS = ("terrace", "sliding", "none")
LENGTHS = ("T96", "T71")


def setUpModule():
    global VALUES
    VALUES = support.read_hdf5(GOLDEN / "golden.h5")


def group(prefix):
    """The golden arrays whose names begin with prefix/, without it."""
    return {name[len(prefix) + 1:]: array for name, array in VALUES.items() if name.startswith(prefix + "/")}


def inputs(length):
    return {"model": GOLDEN / "model", "tokens": GOLDEN / f"tokens_{length}.h5", "dtype": "f32", "window": 16}


class Model(support.TestCase):
    """Losses and logits."""

    def check_logits(self, length, golden, loss, **options):
        file = self.path("logits.h5")
        result = support.evaluate(**inputs(length), save_logits=file, **options)
        self.assert_close(support.read_hdf5(file)["logits"], VALUES[golden], TOLERANCE, golden)
        self.assert_close(result["loss"], VALUES[loss], TOLERANCE, loss)
        self.assertEqual(result["tokens"], VALUES[golden].shape[0] * (VALUES[golden].shape[1] - 1))

    def test_teacher(self):
        for length in LENGTHS:
            for micro_batch in (1, 2, 3):
                self.check_logits(length, f"{length}/teacher/logits", f"{length}/teacher/loss", attention="teacher",
                                  micro_batch=micro_batch)

    def test_student(self):
        for length in LENGTHS:
            for kind in KINDS:
                self.check_logits(length, f"{length}/{kind}/logits", f"{length}/{kind}/loss", attention=kind,
                                  feature_maps=GOLDEN / "feature_maps.safetensors", micro_batch=2)

    def test_student_with_adapter(self):
        for length in LENGTHS:
            for kind in KINDS:
                self.check_logits(length, f"{length}/{kind}/lora_logits", f"{length}/{kind}/lora_loss", attention=kind,
                                  feature_maps=GOLDEN / "feature_maps.safetensors", adapter=GOLDEN / "lora")


class HiddenStates(support.TestCase):
    def test_residual_stream_entering_each_layer(self):
        for length in LENGTHS:
            work = self.path(length)
            support.run("hidden", **inputs(length), work=work, block_layers=1, micro_batch=2)
            golden = VALUES[f"{length}/teacher/hidden_states"]
            for layer in range(1, len(golden)):
                self.assert_close(support.read_hidden(work, layer), golden[layer], TOLERANCE, f"{length} {layer}")


class Transfer(support.TestCase):
    """Losses and gradients of stage 1."""

    def gradients(self, length, kind, **options):
        file = self.path("gradients.h5")
        settings = {"work": self.path("work"), "steps": 1, "attention": kind, "dump_gradients": file, "fresh": True,
                    "init_feature_maps": GOLDEN / "feature_maps.safetensors", **options}
        support.run("block", **inputs(length), **settings)
        return support.read_hdf5(file)

    def expected(self, length, kind, with_xent):
        layers = VALUES[f"{length}/{kind}/layer_mse_x1000"]
        if with_xent:
            layers = layers + VALUES[f"{length}/{kind}/layer_xent"]
        gradients = group(f"{length}/{kind}/grad_mse" + ("_xent" if with_xent else ""))
        return {**gradients, "layer_losses": layers, "loss": layers.mean()}

    def test_mean_squared_error(self):
        for length in LENGTHS:
            for kind in KINDS:
                self.assert_all_close(self.gradients(length, kind), self.expected(length, kind, False), TOLERANCE,
                                      f"{length} {kind}")

    def test_with_cross_entropy(self):
        for length in LENGTHS:
            for kind in ("terrace", "sliding"):  # the golden values of none use other weights
                self.assert_all_close(self.gradients(length, kind, xent_factor=1), self.expected(length, kind, True),
                                      TOLERANCE, f"{length} {kind}")

    def test_micro_batches(self):
        for kind in KINDS:
            expected = self.expected("T71", kind, False)
            runs = [self.gradients("T71", kind, micro_batch=size) for size in (1, 2, 3)]
            for gradients in runs:
                self.assert_all_close(gradients, expected, TOLERANCE, kind)
                # Each sequence's part is summed in double in the order of the sequences.
                self.assert_all_close(gradients, runs[0], 1e-7, kind)

    def test_block_by_block_from_stored_states(self):
        for length in LENGTHS:
            support.run("hidden", **inputs(length), work=self.path("work"), block_layers=1)
            for kind in KINDS:
                gradients = self.gradients(length, kind, block_layers=1)
                expected = self.expected(length, kind, False)
                for name in expected:  # a block's loss is the mean over its own layers only
                    if name.startswith("model."):
                        expected[name] = expected[name] * 3
                self.assert_all_close(gradients, expected, TOLERANCE, f"{length} {kind}")
            support.shutil.rmtree(self.path("work"))


class LowRank(support.TestCase):
    """Loss and gradients of stage 2."""

    def test_gradients(self):
        for length, sizes in (("T96", (1,)), ("T71", (2, 3))):
            for kind in KINDS:
                for micro_batch in sizes:
                    file = self.path("gradients.h5")
                    support.run("lora", **inputs(length), work=self.path("work"), steps=1, attention=kind,
                                feature_maps=GOLDEN / "feature_maps.safetensors", init_adapter=GOLDEN / "lora",
                                dump_gradients=file, micro_batch=micro_batch, fresh=True)
                    expected = group(f"{length}/{kind}/grad_lora")
                    expected["loss"] = VALUES[f"{length}/{kind}/lora_loss"]
                    self.assert_all_close(support.read_hdf5(file), expected, TOLERANCE, f"{length} {kind}")


class Comparison(support.TestCase):
    """The comparer itself must be able to fail."""

    def test_wrong_numbers_fail(self):
        nan = float("nan")
        for wrong in ([1, 2.1], [1, nan], [nan, nan], [1, float("inf")], [1, 2, 3]):
            with self.assertRaises(AssertionError):
                self.assert_close(wrong, [1, 2], 1e-3)
        with self.assertRaises(AssertionError):
            self.assert_close([1, nan], [1, nan], 1e-3)
        with self.assertRaises(AssertionError):
            self.assert_same_numbers([1, nan], [1, nan])


if __name__ == "__main__":
    unittest.main()
