#!/usr/bin/env python3
"""Peak memory of attention transfer: it grows with the layers of a block, not with those of the model or the data.

Weights dominate by choice of the sizes. One thread, so that no buffers of other threads add noise.
"""

import re
import tempfile
import unittest
from pathlib import Path

import support

MB = 1e6
HIDDEN, INNER, HEADS, LENGTH = 512, 1536, 8, 32
LAYER = 2 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER)  # bytes of a layer's weights in bf16
SIZES = {"hidden": HIDDEN, "intermediate": INNER, "heads": HEADS, "kv_heads": HEADS, "length": LENGTH}


def setUpModule():
    global SHARED
    SHARED = tempfile.TemporaryDirectory(prefix="lolcats-memory-")


def tearDownModule():
    SHARED.cleanup()


class Memory(support.TestCase):
    """Peak of a run over all blocks in turn by one rank."""

    def peak(self, layers, block_layers, sequences):
        model = Path(SHARED.name) / f"{layers}_{sequences}"
        if not model.exists():
            support.make_miniature(model, layers=layers, sequences=sequences, **SIZES)
        settings = {"model": model, "tokens": model / "tokens.h5", "block_layers": block_layers, "window": 8,
                    "work": self.path(f"work{layers}_{block_layers}_{sequences}"), "gemm": "f32", "batch_size": 4,
                    "feature_dim": 8}
        if block_layers < layers:
            support.run("hidden", threads=1, **settings)
        return support.peak_memory("block", steps=2, **settings)

    def test_grows_with_the_layers_of_a_block(self):
        one, two, four = (self.peak(8, size, 4) for size in (1, 2, 4))
        eight = self.peak(8, 8, 4)
        print(f"\nMB at 1, 2, 4, 8 layers a block: {[round(x / MB) for x in (one, two, four, eight)]}, "
              f"{LAYER / MB:.1f} MB a layer")
        self.assertTrue(one < two < four < eight)
        self.assertGreater(eight - one, 0.8 * 7 * LAYER)
        self.assertLess(eight - one, 1.3 * 7 * LAYER)

    def test_does_not_grow_with_the_layers_of_the_model(self):
        shallow, deep = self.peak(4, 2, 4), self.peak(8, 2, 4)
        print(f"\nMB at 4, 8 layers: {shallow / MB:.0f}, {deep / MB:.0f}")
        self.assertLess(abs(deep - shallow), LAYER)  # four more layers of the model

    def test_does_not_grow_with_the_sequences(self):
        few, many = self.peak(4, 2, 4), self.peak(4, 2, 1024)
        stored = 1024 * LENGTH * HIDDEN * 2
        print(f"\nMB at 4, 1024 sequences: {few / MB:.0f}, {many / MB:.0f}; {stored / MB:.0f} MB stored a block")
        self.assertGreater(stored, 4 * LAYER)
        self.assertLess(abs(many - few), LAYER)


class Arrays(support.TestCase):
    """What each stage says of its arrays at its end."""

    def figures(self, program, ranks, **settings):
        """MB of the rank that needs most: measured, and predicted by lolcats_plan's formulas."""
        log = support.attempt(program, ranks, 1, **settings).stderr
        found = re.search(r"arrays: at most (\S+) MB a rank, (\S+) MB predicted", log)
        self.assertIsNotNone(found, log)
        return [float(number) for number in found.groups()]

    def test_arrays_are_predicted(self):
        model = support.make_miniature(self.path("model"), layers=6, hidden=512, heads=8, kv_heads=4,
                                       intermediate=1536, vocab=4096, sequences=2, length=256)
        common = {"model": model, "tokens": model / "tokens.h5", "block_layers": 2, "batch_size": 1, "steps": 1,
                  "window": 32}
        for program in ("hidden", "block", "convert", "lora"):
            extra = {"kl_factor": 1, "lora_dropout": 0.1, "validation": 1} if program == "lora" else {}
            for dtype, gemm in (("bf16", "f32"), ("fp8", "f32"), ("fp8", "fp8")):
                work = self.path(f"{'streamed' if program == 'convert' else 'work'}_{dtype}_{gemm}")
                with self.subTest(program, dtype=dtype, gemm=gemm):
                    measured, predicted = self.figures(program, 3, work=work, dtype=dtype, gemm=gemm, **common, **extra)
                    self.assertLess(abs(measured / predicted - 1), 0.05, f"{measured} MB, {predicted} MB predicted")

    def test_what_cannot_fit_is_refused_before_it_is_tried(self):
        model = support.make_miniature(self.path("model"), layers=4, sequences=2, length=256)
        common = {"model": model, "tokens": model / "tokens.h5", "block_layers": 2, "window": 32, "gemm": "f32"}
        for work in ("stored", "trained"):
            support.run("hidden", 2, 1, work=self.path(work), **common)
        support.run("block", 2, 1, work=self.path("trained"), batch_size=2, steps=1, **common)
        for program, work in (("hidden", "new"), ("block", "stored"), ("convert", "new"), ("lora", "trained")):
            with self.subTest(program):
                done = support.attempt(program, 2, 1, work=self.path(work), micro_batch=4_000_000,
                                       batch_size=8_000_000, steps=1, **common)
                self.assert_fails(done, "out of memory", "more than a node has free", "--micro-batch")


if __name__ == "__main__":
    unittest.main()
