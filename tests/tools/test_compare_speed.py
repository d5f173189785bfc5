#!/usr/bin/env python3
"""The comparison with PyTorch (tools/compare) at a toy size: both sides compute the same, and its table says what it
measured."""

import json
import os
import sys
import unittest.mock

from tool_support import TOOLS, ToolTest, main, needs, needs_program, support

sys.path.insert(0, str(TOOLS / "compare"))
os.environ.setdefault("LOLCATS_BIN", str(support.BIN))


@needs("torch", "safetensors", "h5py")
@needs_program("lolcats_lora")
class CompareSpeed(ToolTest):
    def files(self, name):
        from shapes import SHAPES, Files
        return Files(SHAPES[name], self.path("shapes")).write()

    def test_both_sides_compute_the_same(self):
        import same
        for _, form, mine, theirs, difference, allowed in same.differences(self.files("toy")):
            self.assertLessEqual(difference, allowed, (form, mine, theirs))

    def test_other_numbers_are_noticed(self):
        import opponent
        import same
        files = self.files("toy")
        with unittest.mock.patch.object(opponent, "MSE_FACTOR", 1001.0):
            apart = {task: difference / allowed for task, form, _, _, difference, allowed in same.differences(files)
                     if form == "float32"}
        self.assertGreater(apart["transfer"], 1)
        self.assertLessEqual(apart["lora"], 1)

    def test_results_and_table(self):
        results, table = self.path("speed.json"), self.path("speed.md")
        done = self.run_tool("compare/speed", "--shapes", "toy", "toy-layer", "--threads", "1", "--rounds", "2",
                             "--modes", "eager", results=results, table=table, square=256, no_check=True)
        kept = json.loads(results.read_text(encoding="utf-8"))["results"]
        self.assertEqual({(r["shape"], r["task"]) for r in kept},
                         {(shape, task) for shape in ("toy", "toy-layer") for task in ("teacher", "transfer", "lora")})
        for r in kept:
            for side in ("ours", "theirs"):
                self.assertEqual(len(r[side]["rounds"]), 2)
                self.assertGreater(min(r[side]["rounds"]), 0)
                self.assertGreater(r[side]["memory"], 1e6)
            self.assertLess(0, r["split"]["kernels"]["weight_products"]["seconds"])
        text = table.read_text(encoding="utf-8")
        self.assertIn(text, done.stdout)
        self.assertEqual(text.count("| stage 1 |"), 2 * 2 + 1)  # speed and split of both, files of the one that has any


if __name__ == "__main__":
    main()
