#!/usr/bin/env python3
"""tools/compare/quality trains, evaluates, writes its table and plot, and keeps what it has."""

import json
import os

from tool_support import ToolTest, main, needs, needs_program, run_tool, support


@needs_program("lolcats_convert")
@needs("numpy", "h5py", "matplotlib")
class Quality(ToolTest):
    def run_quick(self, *tables):
        done = run_tool("compare/quality", "--quick", "--only", *tables, out=self.path("out"), programs=support.BIN)
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        return done.stdout

    def test_table_and_plot_and_going_on(self):
        first = self.run_quick("blocks")
        self.assertIn("| k = 4 (joint) | ", first)
        self.assertTrue(self.path("out/quality.png").read_bytes().startswith(b"\x89PNG"))
        self.assertEqual(self.path("out/quality.md").read_text(encoding="utf-8"), first.rsplit("\n", 1)[0])
        results = json.loads(self.path("out/results.json").read_text(encoding="utf-8"))
        for row in results.values():
            self.assertTrue(4 < row["0"]["perplexity"] < 100 and 0 <= row["0"]["recall"] <= 1, row)
        evaluations = sorted(self.path("out/seed_0").glob("evaluation_*.json"))
        times = [path.stat().st_mtime_ns for path in evaluations]
        self.run_quick("blocks")
        self.assertEqual([path.stat().st_mtime_ns for path in evaluations], times)

    def test_what_is_wrong_is_one_line(self):
        done = run_tool("compare/quality", "--quick", programs=self.path("none"), out=self.path("out"))
        self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1), done.stderr)
        self.assertIn("has no lolcats_convert", done.stderr)
        self.path("out").mkdir()
        self.path("out/shares.json").write_text('{"steps": 1, "sequences": 1}', encoding="utf-8")
        done = run_tool("compare/quality", "--quick", programs=support.BIN, out=self.path("out"))
        self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1), done.stderr)
        self.assertIn("give another --out", done.stderr)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
