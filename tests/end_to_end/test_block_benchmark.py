#!/usr/bin/env python3
"""The benchmark of a block (tools/bench/block_405b) on a small shape: its figures agree with one another, with
lolcats_plan's arithmetic, and with the arrays it allocates."""
import json
import subprocess
import unittest

import support

SHAPE = {"model-layers": 6, "layers": 2, "width": 256, "intermediate": 512, "heads": 8, "kv-heads": 2, "head-dim": 32,
         "vocabulary": 512, "length": 256, "batch-size": 4, "micro-batch": 2, "steps": 3, "square": 256}


def per_token(layers):
    """lolcats_plan's FLOP of a token's matrix products."""
    d, q, kv, f = 256, 256, 64, 512
    return layers * 2 * (d * q + 2 * d * kv + q * d + 3 * d * f)


class BlockBenchmark(support.TestCase):
    def measure(self, **settings):
        command = [str(support.BIN / "block_405b"), "--json", str(self.path("figures.json"))]
        for name, value in {**SHAPE, **settings}.items():
            command += [f"--{name}", str(value)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(self.path("figures.json").read_text(encoding="utf-8"), parse_constant=support.refuse_constant)

    def assert_split_adds_up(self, figures):
        """What is timed inside a step is all of it."""
        total = sum(kernel["seconds"] for kernel in figures["kernels"].values())
        self.assertAlmostEqual(total / figures["split_seconds_a_step"], 1, delta=0.02)

    def assert_memory_is_predicted(self, figures):
        self.assertAlmostEqual(figures["array_bytes"] / figures["predicted_bytes"], 1, delta=0.05)

    def test_attention_transfer(self):
        figures = self.measure(stage="transfer")
        self.assertEqual(figures["tokens_a_step"], 4 * 256)
        self.assertEqual(figures["plan_flops_per_token"], per_token(2))
        self.assertEqual(figures["product_flops_per_token"], per_token(2))
        self.assertEqual(figures["kernels"]["weight_products"]["calls"], 2 * 2 * 7)
        self.assertEqual(figures["kernels"]["softmax_attention"]["calls"], 2 * 2)
        self.assertEqual(figures["stages"], 3)
        self.assertGreater(figures["fraction_of_peak"], 0)
        self.assert_split_adds_up(figures)
        self.assert_memory_is_predicted(figures)

    def test_teacher(self):
        figures = self.measure(stage="teacher")
        self.assertEqual(figures["product_flops_per_token"], per_token(2))
        self.assertEqual(figures["kernels"]["softmax_attention"]["calls"], 2 * 2)
        self.assertNotIn("student_attention", figures["kernels"])
        self.assert_split_adds_up(figures)
        self.assert_memory_is_predicted(figures)

    def test_low_rank_stage(self):
        figures = self.measure(stage="lora", **{"lora-dropout": 0.5, "activation-memory": 0})
        self.assertEqual(figures["plan_flops_per_token"], 3 * per_token(2))
        # The down projection is not recomputed.
        self.assertEqual(figures["product_flops_per_token"], 3 * per_token(2) - 2 * 2 * 256 * 512)
        self.assertEqual(figures["kernels"]["weight_products"]["calls"], 2 * 2 * (7 + 6 + 7))
        # A pipeline of 3 stages and 2 micro-batches waits for 2 of every 4 of them.
        self.assertAlmostEqual(figures["bubble"], 0.5)
        self.assert_split_adds_up(figures)
        self.assert_memory_is_predicted(figures)

    def test_last_layer_is_not_recomputed_where_no_stage_follows(self):
        figures = self.measure(stage="lora", **{"model-layers": 2, "activation-memory": 0})
        down, one_layer, entering = 2 * 256 * 512, per_token(1), 2 * 256 * (256 + 2 * 64)
        # Nor is there a gradient of the embeddings.
        self.assertEqual(figures["product_flops_per_token"], 3 * per_token(2) - 2 * down - (one_layer - down) - entering)
        self.assertEqual(figures["kernels"]["weight_products"]["calls"], 2 * (2 * (7 + 7) + 6 - 3))
        self.assertEqual(figures["kernels"]["student_attention"]["calls"], 2 * (2 + 1))
        self.assert_memory_is_predicted(figures)

    def test_kept_layers_are_not_recomputed(self):
        figures = self.measure(stage="lora")
        self.assertEqual(figures["product_flops_per_token"], 2 * per_token(2))
        self.assertEqual(figures["kernels"]["weight_products"]["calls"], 2 * 2 * (7 + 7))
        self.assertEqual(figures["kernels"]["student_attention"]["calls"], 2 * 2)
        self.assert_memory_is_predicted(figures)

    def test_eight_bit_weights(self):
        # The less the weights take, the more the arrays that no plan counts.
        wider = {"width": 512, "intermediate": 1024, "batch-size": 2, "steps": 1}
        for gemm in ("f32", "fp8"):
            for stage in ("transfer", "lora"):
                with self.subTest(gemm=gemm, stage=stage):
                    figures = self.measure(stage=stage, dtype="fp8", gemm=gemm, **wider)
                    self.assertEqual(figures["arithmetic"], gemm)
                    self.assert_memory_is_predicted(figures)

    def test_impossible_settings_are_refused(self):
        done = subprocess.run([str(support.BIN / "block_405b"), "--model", "8b", "--layers", "33"], capture_output=True,
                              text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--layers 33", done.stderr)
        done = subprocess.run([str(support.BIN / "block_405b"), "--gemm", "fp8"], capture_output=True, text=True,
                              timeout=60, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--dtype fp8", done.stderr)


if __name__ == "__main__":
    unittest.main()
