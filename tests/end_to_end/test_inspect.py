#!/usr/bin/env python3
"""lolcats_inspect on stores and logs that the programs made, whole ones and ones that something happened to."""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import h5py
import numpy as np

import support

INSPECT = support.ROOT / "tools" / "inspect" / "lolcats_inspect"
LAYERS, SIZE, SEQUENCES, VALIDATION, STEPS = 7, 2, 6, 2, 5
BLOCKS = -(-LAYERS // SIZE)
LOUD = 11  # a channel of the embedding that is much larger than the others


def setUpModule():
    """The same model in bf16 and f32 through stages 0 and 1."""
    global SHARED, HOME
    SHARED = tempfile.TemporaryDirectory(prefix="lolcats-inspect-")
    HOME = Path(SHARED.name)
    model = support.make_miniature(HOME / "model", layers=LAYERS, sequences=SEQUENCES, length=40, dtype="f32")
    weights = support.read_safetensors(model / "model.safetensors")
    weights["model.embed_tokens.weight"][:, LOUD] *= 20
    support.write_safetensors(model / "model.safetensors", weights)
    for dtype in ("bf16", "f32"):
        settings = {"model": model, "tokens": model / "tokens.h5", "block_layers": SIZE, "window": 8, "dtype": dtype,
                    "gemm": "f32", "work": HOME / dtype}
        support.run("hidden", 2, 1, **settings)
        support.run("block", 2, 1, batch_size=2, steps=STEPS, validation=VALIDATION, eval_every=2, **settings)


def tearDownModule():
    SHARED.cleanup()


class InspectTest(support.TestCase):
    def inspect(self, command, *paths, status=0, **options):
        """The figures, and the lines about what is wrong."""
        report = self.path("report.json")
        report.unlink(missing_ok=True)
        line = [sys.executable, INSPECT, command, *paths, "--json", report]
        for key, value in options.items():
            line += ["--" + key.replace("_", "-"), str(value)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, status, done.stderr)
        self.printed, self.errors = done.stdout, done.stderr
        if status == 2:
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            return None
        figures = json.loads(report.read_text())
        self.assertEqual([f"lolcats_inspect: wrong: {problem}" for problem in figures["problems"]],
                         done.stderr.splitlines())
        self.problems = figures["problems"]
        return figures["blocks"]

    def copy(self, dtype="bf16"):
        return Path(shutil.copytree(HOME / dtype, self.path(f"copy of {dtype}")))

    def assert_one_problem(self, *words):
        self.assertEqual(len(self.problems), 1, self.problems)
        for word in words:
            self.assertIn(word, self.problems[0])


def flip_bit(path, sequence, token, channel):
    """As a disk would: in the file's bytes, behind HDF5's back."""
    with h5py.File(path, "r") as file:
        states = file["hidden_states"]
        place = states.id.get_chunk_info_by_coord((sequence, 0, 0)).byte_offset
        place += (token * states.shape[2] + channel) * states.dtype.itemsize // (2 if "bfloat16" in file else 1)
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 4]))


class Hidden(InspectTest):
    def test_norms_are_those_of_the_states(self):
        for dtype in ("bf16", "f32"):
            blocks = self.inspect("hidden", HOME / dtype)
            self.assertEqual([(block["block"], block["layer"]) for block in blocks],
                             [(block, SIZE * block) for block in range(1, BLOCKS)])
            for figures in blocks:
                states = np.float64(support.read_hidden(HOME / dtype, figures["block"]))
                rms = np.sqrt((states**2).mean(axis=(1, 2)))
                self.assert_close(figures["rms"], np.sqrt((states**2).mean()), 1e-12, "RMS")
                self.assert_close(figures["smallest_sequence_rms"], rms.min(), 1e-12)
                self.assert_close(figures["largest_sequence_rms"], rms.max(), 1e-12)
                self.assertEqual(figures["largest"], np.abs(states).max())
                self.assertEqual(abs(states[tuple(figures["largest_at"])]), figures["largest"])
                self.assertEqual((figures["done"], figures["sequences"]), (SEQUENCES, SEQUENCES))
                self.assertEqual((figures["missing"], figures["damaged"]), ([], []))

    def test_outlier_channel_is_found(self):
        for figures in self.inspect("hidden", HOME / "f32"):
            self.assertEqual([channel for channel, _ in figures["outliers"]], [LOUD])
            states = np.float64(support.read_hidden(HOME / "f32", figures["block"]))
            rms = np.sqrt((states**2).mean(axis=(0, 1)))
            self.assert_close(figures["outliers"][0][1], rms[LOUD] / np.median(rms), 1e-12)
        for figures in self.inspect("hidden", HOME / "f32", outlier_factor=1000):
            self.assertEqual(figures["outliers"], [])

    def test_flipped_bit_names_the_sequence(self):
        for dtype in ("bf16", "f32"):
            work = self.copy(dtype)
            flip_bit(work / "hidden" / "block_02.h5", 3, 17, 5)
            blocks = self.inspect("hidden", work, status=1)
            self.assert_one_problem("block_02.h5", "sequence 3", "checksum", "run lolcats_hidden again")
            self.assertEqual([figures["damaged"] for figures in blocks], [[], [3], []])

    def test_numbers_that_are_not_finite(self):
        work = self.copy()
        with h5py.File(work / "hidden" / "block_01.h5", "r+") as file:
            file["hidden_states"][4, 7, 2:5] = np.float32([np.nan, np.inf, -np.inf])
        figures = self.inspect("hidden", work, status=1)[0]
        self.assertEqual((figures["nan"], figures["infinite"], figures["damaged"]), (1, 2, [4]))
        self.assertEqual(len(self.problems), 2)
        self.assertTrue(np.isfinite(figures["rms"]))

    def test_sequences_that_are_not_done(self):
        work = self.copy()
        with h5py.File(work / "hidden" / "block_03.h5", "r+") as file:
            file["done"][1:4] = 0
            file["hidden_states"][2] = np.nan  # what is not done is not looked at
        figures = self.inspect("hidden", work, status=1)[2]
        self.assertEqual((figures["missing"], figures["done"], figures["nan"]), ([1, 2, 3], SEQUENCES - 3, 0))
        self.assert_one_problem("block_03.h5", "3 of 6", "1-3", "run lolcats_hidden again")

    def test_no_sequence_done(self):
        work = self.copy()
        with h5py.File(work / "hidden" / "block_03.h5", "r+") as file:
            file["done"][...] = 0
        self.assertEqual(self.inspect("hidden", work, status=1)[2]["done"], 0)

    def test_missing_block_and_block_of_another_run(self):
        work = self.copy()
        (work / "hidden" / "block_02.h5").unlink()
        self.inspect("hidden", work, status=1)
        self.assert_one_problem("block 2 has no file")
        shutil.copy(HOME / "f32" / "hidden" / "block_02.h5", work / "hidden")
        self.inspect("hidden", work, status=1)
        self.assert_one_problem("block_02.h5", "float32")
        with h5py.File(work / "hidden" / "block_03.h5", "r+") as file:
            file.attrs["tokens_identity"] = "0123456789abcdef"
        self.inspect("hidden", work, status=1)
        self.assertTrue(any("tokens identity" in problem for problem in self.problems))

    def test_what_is_no_store(self):
        self.inspect("hidden", self.directory, status=2)
        self.assertIn("block_XX.h5", self.errors)
        file = self.copy() / "hidden" / "block_01.h5"
        os.truncate(file, file.stat().st_size // 2)
        self.inspect("hidden", file, status=2)
        self.assertIn("block_01.h5", self.errors)

    def test_store_of_another_layout(self):
        whole = HOME / "f32" / "hidden" / "block_01.h5"
        for name, value in (("hidden_states", None), ("hidden_states", "text"), ("hidden_states", np.zeros((6, 40))),
                            ("hidden_states", np.zeros((6, 40, 4), np.int32)), ("done", "text"), ("done", np.ones(5)),
                            ("checksums", None), ("checksums", np.zeros(6))):
            shutil.copy(whole, self.path("block_01.h5"))
            with h5py.File(self.path("block_01.h5"), "r+") as file:
                del file[name]
                file[name] = file.create_group("group") if value is None else value
            self.inspect("hidden", self.path("block_01.h5"), status=2)
            self.assertIn("block_01.h5", self.errors)
            self.assertNotIn("Traceback", self.errors)
        shutil.copy(whole, self.path("block_01.h5"))
        with h5py.File(self.path("block_01.h5"), "r+") as file:
            file.attrs["layer"] = "two"
        self.inspect("hidden", self.path("block_01.h5"), status=2)
        self.assertIn("block_01.h5", self.errors)

    def test_picture(self):
        for name in ("norms.png", "norms.of.bf16"):
            self.inspect("hidden", HOME / "bf16", png=self.path(name))
            self.assert_picture(name)

    def assert_picture(self, name):
        content = self.path(name).read_bytes()
        self.assertEqual(content[:8], b"\x89PNG\r\n\x1a\n")
        self.assertGreater(len(content), 10000)

    def test_memory_does_not_grow_with_the_store(self):
        peaks = []
        for sequences in (2, 512):
            model = support.make_miniature(self.path(f"{sequences}"), layers=2, hidden=64, length=512,
                                           sequences=sequences)
            support.run("hidden", 0, 2, model=model, tokens=model / "tokens.h5", block_layers=1, work=model, gemm="f32")
            with subprocess.Popen([sys.executable, INSPECT, "hidden", model], stdout=subprocess.DEVNULL) as process:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(process.returncode, 0)
            peaks.append(usage.ru_maxrss * 1024)
        stored = 512 * 512 * 64 * 2
        print(f"\nMB at 2, 512 sequences: {[round(peak / 1e6) for peak in peaks]}; {stored / 1e6:.0f} MB stored")
        self.assertLess(peaks[1] - peaks[0], stored / 4)


class Compare(InspectTest):
    def test_a_store_is_equal_to_its_copy(self):
        for figures in self.inspect("compare", self.copy(), HOME / "bf16"):
            self.assertEqual((figures["relative_rms"], figures["largest"], figures["differing"]), (0, 0, []))
            self.assertEqual(figures["sequences"], SEQUENCES)

    def test_two_types(self):
        blocks = self.inspect("compare", HOME / "bf16", HOME / "f32", status=1)
        for figures in blocks:
            mine, other = (np.float64(support.read_hidden(HOME / dtype, figures["block"])) for dtype in ("bf16", "f32"))
            self.assert_close(figures["relative_rms"], support.relative_rms(mine, other), 1e-9)
            self.assertEqual(figures["largest"], np.abs(mine - other).max())
            self.assertEqual(figures["differing"], list(range(SEQUENCES)))
            self.assertTrue(0 < figures["relative_rms"] < 0.05)
        self.inspect("compare", HOME / "bf16", HOME / "f32", tolerance=0.05)

    def test_one_bit(self):
        work = self.copy()
        flip_bit(work / "hidden" / "block_03.h5", 5, 39, 31)
        self.assertEqual([figures["differing"] for figures in
                          self.inspect("compare", work, HOME / "bf16", status=1)], [[], [], [5]])
        self.assert_one_problem("block_03.h5", "sequences 5 differ")

    def test_sequences_that_one_lacks(self):
        work = self.copy()
        with h5py.File(work / "hidden" / "block_01.h5", "r+") as file:
            file["done"][2] = 0
        self.assertEqual(self.inspect("compare", work, HOME / "bf16", status=1)[0]["sequences"], SEQUENCES - 1)
        self.assert_one_problem("sequences 2 are done in one only")

    def test_stores_of_other_blocks(self):
        hidden = HOME / "bf16" / "hidden"
        self.inspect("compare", hidden / "block_01.h5", hidden / "block_02.h5", status=2)
        self.assertIn("not comparable", self.errors)


def trained(work, **settings):
    """A run of stage 1 in this work directory."""
    support.run("block", 0, 1, work=work, **settings)
    return work


class Training(InspectTest):
    def log(self, work, block):
        return work / "transfer" / f"block_{block:02}.jsonl"

    def test_losses_are_those_of_the_logs(self):
        blocks = self.inspect("training", HOME / "bf16", png=self.path("losses.png"))
        self.assertEqual([figures["layers"] for figures in blocks], [[0, 1], [2, 3], [4, 5], [6, 6]])
        for figures in blocks:
            log = self.log(HOME / "bf16", figures["block"])
            losses = np.array([line["layer_losses"] for line in support.train_lines(log)]).T
            self.assert_same_numbers(figures["layer_losses"], losses)
            self.assertEqual(figures["steps"], list(range(STEPS)))
            best = min(support.evaluation_lines(log), key=lambda line: line["eval_loss"])
            self.assertEqual((figures["best_mse"], figures["best_step"]), (best["eval_loss"] / 1000, best["step"]))
            self.assert_close(figures["best_mse"], np.mean(figures["best_layer_mse"]), 1e-12)
            self.assertEqual(figures["evaluation_steps"], [0, 2, 4, 5])
            self.assertIn(f"{figures['best_mse']:.5g}", self.printed)
        Hidden.assert_picture(self, "losses.png")

    def test_error_is_told_apart_from_cross_entropy(self):
        settings = {"model": HOME / "model", "tokens": HOME / "model" / "tokens.h5", "window": 8, "dtype": "f32",
                    "batch_size": 2, "steps": 2, "validation": 2}
        plain, mixed = (self.inspect("training", trained(self.path(name), xent_factor=factor, **settings))[0]
                        for name, factor in (("plain", 0), ("mixed", 0.5)))
        self.assert_close(mixed["first_mse"], plain["first_mse"], 1e-12)
        self.assertGreater(mixed["evaluation_layer_losses"][0][0], plain["evaluation_layer_losses"][0][0])
        self.assertIn("evaluation MSE by block", self.printed)
        relative = self.inspect("training", trained(self.path("relative"), layer_loss="normalized", **settings))[0]
        self.assertNotAlmostEqual(relative["first_mse"] / plain["first_mse"], 1, delta=0.01)
        self.assertIn("evaluation MSE relative to the teacher's output by block", self.printed)

    def test_weight_of_the_error_comes_from_the_run(self):
        settings = {"model": HOME / "model", "tokens": HOME / "model" / "tokens.h5", "window": 8, "dtype": "f32",
                    "work": self.path("work"), "batch_size": 2, "steps": 2, "validation": 2}
        support.run("block", 0, 1, mse_factor=50, **settings)
        figures = self.inspect("training", self.path("work"))[0]
        self.assertEqual(figures["mse_factor"], 50)
        reference = support.evaluation_lines(self.log(self.path("work"), 0))[0]["eval_loss"] / 50
        self.assert_close(figures["first_mse"], reference, 1e-12)

    def test_line_that_was_cut_off(self):
        work = self.copy()
        log = self.log(work, 2)
        log.write_bytes(log.read_bytes()[:-30])
        self.inspect("training", work, status=1)
        self.assert_one_problem("block_02.jsonl", "is no line of a log")

    def test_loss_that_is_not_finite(self):
        work = self.copy()
        lines = self.log(work, 1).read_text().splitlines()
        entry = json.loads(lines[1])
        entry["layer_losses"][0] = float("nan")
        self.log(work, 1).write_text("\n".join([lines[0], json.dumps(entry), *lines[2:]]) + "\n")
        self.inspect("training", work, status=1)
        self.assertIn("not finite", self.problems[0])

    def test_blocks_that_are_not_finished(self):
        work = self.copy()
        lines = self.log(work, 3).read_text().splitlines()
        self.log(work, 3).write_text("\n".join(lines[:-2]) + "\n")
        self.inspect("training", work, status=1)
        self.assert_one_problem("block 3 has fewer steps than the 5")
        self.log(work, 1).unlink()
        blocks = self.inspect("training", work, status=1)
        self.assertTrue(any("block 1 has no log" in problem for problem in self.problems))
        self.assertEqual([figures["layers"][0] for figures in blocks], [0, 4, 6])

    def test_steps_out_of_order(self):
        work = self.copy()
        with open(self.log(work, 0), "a") as log:
            log.write(self.log(work, 0).read_text())
        self.inspect("training", work, status=1)
        self.assertIn("step 0 follows step", self.problems[0])

    def test_what_is_no_log(self):
        self.inspect("training", self.directory, status=2)
        self.assertIn("block_XX.jsonl", self.errors)
        for name in ("lora.jsonl", "block_00.safetensors"):
            shutil.copy(self.log(HOME / "bf16", 0), self.path(name))
            self.inspect("training", self.path(name), status=2)
            self.assertIn(f"{name}: is not named block_XX.jsonl", self.errors)

    def test_lines_of_no_log(self):
        log = self.log(self.copy(), 1)
        lines = [b"\xff\xfe", b"[" * 100000, b"7", b'["step"]', b'{"step": "5", "loss": 1, "layer_losses": [1, 1]}',
                 b'{"step": 5, "loss": 1, "layer_losses": 1}', b'{"step": 5, "loss": 1, "layer_losses": []}']
        with open(log, "ab") as file:
            file.write(b"\n".join(lines) + b"\n")
        self.inspect("training", log, status=1)
        self.assertEqual(len(self.problems), len(lines), self.problems)
        for problem in self.problems:
            self.assertIn("is no line of a log", problem)
        log.write_text('{"step": 0, "loss": 1' + 400 * "0" + ', "layer_losses": [null]}\n')
        self.inspect("training", log, status=1)
        self.assertIn("not finite", self.problems[0])

    def test_damaged_file_of_the_maps(self):
        """It has the weights of the losses."""
        log = self.log(self.copy(), 1)
        decks = [json.dumps({"options": options}) for options in ({"mse-factor": "x"}, {"xent-factor": [1]}, 7)]
        headers = [json.dumps({"__metadata__": {"run_deck": deck}}) for deck in (*decks, "[" * 100000)]
        for text in (*headers, "[]"):
            log.with_suffix(".safetensors").write_bytes(struct.pack("<Q", len(text)) + text.encode())
            self.inspect("training", log, status=1)
            self.assert_one_problem("block_01.safetensors", "is damaged")
        log.with_suffix(".safetensors").write_bytes(b"\xff" * 8 + b"{}")
        self.inspect("training", log, status=1)
        self.assert_one_problem("block_01.safetensors", "is damaged")


if __name__ == "__main__":
    unittest.main()
