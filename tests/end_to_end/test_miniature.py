#!/usr/bin/env python3
"""A model of 126 layers at toy width through all stages on 14 ranks, as the largest Llama would be converted.

The stages run in one directory with nothing but a lolcats.toml; 14 blocks of 9 layers, one a rank.
"""

import json
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import h5py
import numpy as np

import reference
import support

LAYERS, BLOCKS, RANKS, STEPS = 126, 14, 14, 3
CONFIGURATION = """
model = "model"
tokens = "model/tokens.h5"
block-layers = 9
window = 16
steps = 3
batch-size = 2
lora-rank = 2
"""


def setUpModule():
    """Runs stages 0, 1 and 2 once; the tests look at what they wrote."""
    global SHARED, HOME, WORK
    SHARED = tempfile.TemporaryDirectory(prefix="lolcats-miniature-")
    HOME = Path(SHARED.name)
    WORK = HOME / "work"
    support.make_miniature(HOME / "model", layers=LAYERS, shards=5)
    (HOME / "lolcats.toml").write_text(CONFIGURATION)
    for program in ("hidden", "block", "lora"):
        support.run(program, RANKS, threads=1, cwd=HOME)


def tearDownModule():
    SHARED.cleanup()


class HiddenStates(support.TestCase):
    def test_files(self):
        expected = [f"block_{block:02}.h5" for block in range(1, BLOCKS)]
        self.assertEqual(sorted(path.name for path in (WORK / "hidden").iterdir()), ["all.h5", *expected])

    def test_h5dump_prints_the_numbers_that_h5py_reads(self):
        for block in (1, 7, 13):
            states = support.read_hidden(WORK, block)
            self.assertEqual((states.shape, states.dtype), ((4, 96, 32), np.float32))
            done = subprocess.run(["h5dump", "-y", "-m", "%.9g", "-d", "/hidden_states", "-s", "1,5,0", "-c", "1,1,32",
                                   str(WORK / "hidden" / f"block_{block:02}.h5")], capture_output=True, text=True,
                                  check=True)
            text = re.search(r"DATA \{(.*?)\}", done.stdout, re.S).group(1)
            numbers = np.array(text.replace(",", " ").split(), np.float32)
            self.assert_same_numbers(numbers, states[1, 5], "h5dump")

    def test_states_are_bfloat16(self):
        states = support.read_hidden(WORK, 13)
        self.assert_same_numbers(reference.round_to_bf16(states), states, "no more digits than bfloat16 has")
        self.assertGreater(states.std(), 0.5)

    def test_overview_holds_all_blocks(self):
        with h5py.File(WORK / "hidden" / "all.h5", "r") as file:
            states = file["hidden_states"]
            self.assertEqual(states.shape, (BLOCKS - 1, 4, 96, 32))
            for block in range(1, BLOCKS):
                self.assert_same_numbers(states[block - 1], support.read_hidden(WORK, block), f"block {block}")

    def test_float_run(self):
        """States in float are the reference's; stored as bfloat16 they are those rounded, and the run with bfloat16
        weights and residual stream is near."""
        for name in ("f32", "bf16"):
            support.run("hidden", RANKS, threads=1, cwd=HOME, dtype="f32", hidden_dtype=name, work=self.path(name))
        model = reference.Model(json.loads((HOME / "model" / "config.json").read_text()), {})
        for path in (HOME / "model").glob("*.safetensors"):
            model.weights.update({name: np.float64(array) for name, array in support.read_safetensors(path).items()})
        x = model.weights["model.embed_tokens.weight"][support.read_hdf5(HOME / "model" / "tokens.h5")["tokens"]]
        for layer in range(LAYERS - 9):
            if layer % 9 == 0 and layer > 0:
                exact = support.read_hidden(self.path("f32"), layer // 9)
                self.assert_close(exact, x, 1e-5, f"layer {layer}")
                self.assert_same_numbers(support.read_hidden(self.path("bf16"), layer // 9),
                                         reference.round_to_bf16(exact), f"layer {layer}")
                self.assert_close(support.read_hidden(WORK, layer // 9), exact, 0.03, f"layer {layer}")
            x, _ = reference.run_layer(model, layer, x)


class Transfer(support.TestCase):
    def test_files_hold_every_layer_once(self):
        files = sorted((WORK / "transfer").glob("*.safetensors"))
        self.assertEqual([path.name for path in files], [f"block_{block:02}.safetensors" for block in range(BLOCKS)])
        for block, path in enumerate(files):
            names = ("feature_map_q.mlp.layer", "feature_map_k.mlp.layer", "window_factors")
            expected = {reference.student_name(layer, name) for layer in range(9 * block, 9 * block + 9)
                        for name in names}
            arrays = support.read_safetensors(path)
            self.assertEqual(set(arrays), expected)
            for name, array in arrays.items():
                self.assertEqual(array.shape, (1, 2, 1, 1) if "factors" in name else (2, 16, 8), name)
                self.assertTrue(np.isfinite(array).all(), name)

    def test_logs(self):
        for block in range(BLOCKS):
            lines = support.read_log(WORK / "transfer" / f"block_{block:02}.jsonl")
            self.assertEqual([line["step"] for line in lines], list(range(STEPS)))
            for line in lines:
                self.assertEqual(len(line["layer_losses"]), 9)
                self.assertTrue(all(loss > 0 for loss in line["layer_losses"]))
                self.assert_close(line["loss"], np.mean(line["layer_losses"]), 1e-12)
                self.assertEqual(line["lr"], 0.01)
                self.assertGreater(line["grad_norm"], 0)
                self.assertGreater(line["tokens_per_second"], 0)

    def test_metadata_tells_the_run(self):
        metadata = support.safetensors_header(WORK / "transfer" / "block_13.safetensors")["__metadata__"]
        self.assertEqual((metadata["window"], metadata["attention"]), ("16", "terrace"))
        deck = json.loads(metadata["run_deck"])
        self.assertEqual((deck["program"], deck["options"]["block-layers"]), ("lolcats_block", 9))


class LowRank(support.TestCase):
    def test_adapter_holds_every_layer(self):
        arrays = support.read_safetensors(WORK / "lora" / "adapter_model.safetensors")
        self.assertEqual(len(arrays), LAYERS * 4 * 2)
        self.assertEqual({int(name.split(".")[4]) for name in arrays}, set(range(LAYERS)))
        self.assertTrue(all(np.isfinite(array).all() for array in arrays.values()))
        self.assertTrue(all(array.any() for array in arrays.values()), "B has left zero")
        self.assertEqual(json.loads((WORK / "lora" / "adapter_config.json").read_text())["r"], 2)

    def test_log(self):
        lines = support.read_log(WORK / "lora" / "lora.jsonl")
        self.assertEqual([line["step"] for line in lines], list(range(STEPS)))
        for line in lines:
            self.assertTrue(0 < line["loss"] < 20)

    def test_evaluation(self):
        adapted = {"feature_maps": WORK / "transfer", "adapter": WORK / "lora"}
        for options in ({"attention": "teacher"}, adapted):
            results = [support.evaluate(ranks=ranks, threads=1, cwd=HOME, gemm="f32", **options)
                       for ranks in (0, RANKS)]
            self.assert_close(results[1]["loss"], results[0]["loss"], 1e-6)
            self.assertEqual(results[0]["tokens"], 4 * 95)


class Restart(support.TestCase):
    def test_stage_0_again_leaves_the_states_as_they_are(self):
        before = [support.read_hidden(WORK, block) for block in range(1, BLOCKS)]
        shutil.copytree(WORK / "hidden", self.path("work/hidden"))
        support.run("hidden", RANKS, threads=1, cwd=HOME, work=self.path("work"))
        for block in range(1, BLOCKS):
            self.assert_same_numbers(support.read_hidden(self.path("work"), block), before[block - 1], f"{block}")


if __name__ == "__main__":
    unittest.main()
