#!/usr/bin/env python3
"""Streaming mode, lolcats_convert, against the stored form, lolcats_hidden and then lolcats_block: the same bits."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import numpy as np

import support

LAYERS = 14
NEAR = 1e-6


def setUpModule():
    """A miniature of a depth that blocks of 3, 4 and 5 do not divide, and stored runs that several tests use."""
    global SHARED, HOME, MODEL, STORED
    SHARED = tempfile.TemporaryDirectory(prefix="lolcats-convert-")
    HOME, STORED = Path(SHARED.name), {}
    MODEL = support.make_miniature(HOME / "model", layers=LAYERS, sequences=7, length=53, vocab=61, heads=4, kv_heads=2,
                                   dtype="f32")


def tearDownModule():
    SHARED.cleanup()


def settings(dtype, **options):
    """The arithmetic of bf16 runs is fixed: by default it is the one that measures faster at the moment."""
    return {"model": MODEL, "tokens": MODEL / "tokens.h5", "window": 5, "batch_size": 3, "steps": 5, "shuffle": True,
            "validation": 2, "eval_every": 2, "block_layers": 1, "dtype": dtype,
            **({"gemm": "f32"} if dtype == "bf16" else {}), **options}


def losses(log):
    """What a log says, but for the speed."""
    return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in support.read_log(log)]


class ConvertTest(support.TestCase):
    def stored(self, ranks=0, **options):
        """The work directory of stages 0 and 1 with these settings; each is run once."""
        key = json.dumps([ranks, {name: str(value) for name, value in options.items()}], sort_keys=True)
        if key not in STORED:
            work = HOME / f"stored{len(STORED)}"
            if options["block_layers"] < LAYERS:
                support.run("hidden", 4, 1, work=work, **options)
            support.run("block", ranks, 1, work=work, **options)
            STORED[key] = work
        return STORED[key]

    def streamed(self, ranks, **options):
        work = self.path(f"{ranks}_{len(list(self.directory.iterdir()))}")
        support.run("convert", ranks, 1, work=work, **options)
        self.assertFalse((work / "hidden").exists(), "hidden states touched the disk")
        return work

    def assert_same_training(self, work, expected):
        """Every feature map bit for bit, and every figure of the logs."""
        maps, expected_maps = support.read_feature_maps(work), support.read_feature_maps(expected)
        self.assertEqual(sorted(maps), sorted(expected_maps))
        self.assertTrue(maps)
        for name, array in expected_maps.items():
            self.assertTrue(array.tobytes() == maps[name].tobytes(), f"{work.name} {name}")
        logs = sorted(path.name for path in (expected / "transfer").glob("*.jsonl"))
        self.assertEqual(sorted(path.name for path in (work / "transfer").glob("*.jsonl")), logs)
        for name in logs:
            self.assertEqual(losses(work / "transfer" / name), losses(expected / "transfer" / name), name)

    def assert_near_training(self, work, expected):
        self.assert_all_close(support.read_feature_maps(work), support.read_feature_maps(expected), NEAR, work.name)
        for path in sorted((expected / "transfer").glob("*.jsonl")):
            for line, other in zip(losses(work / "transfer" / path.name), losses(path), strict=True):
                self.assertEqual(line.keys(), other.keys())
                for key in line:
                    self.assert_close(line[key], other[key], NEAR, f"{work.name} {path.name} {key}")


class SameBits(ConvertTest):
    def test_one_block_a_rank(self):
        for dtype in ("f32", "bf16"):
            options = settings(dtype)
            self.assert_same_training(self.streamed(14, **options), self.stored(**options))

    def test_several_blocks_a_rank(self):
        for dtype, ranks in (("f32", 1), ("f32", 2), ("bf16", 7)):
            options = settings(dtype)
            self.assert_same_training(self.streamed(ranks, **options), self.stored(**options))

    def test_blocks_that_the_layers_and_ranks_do_not_divide(self):
        for size, ranks in ((3, 5), (4, 3), (5, 2)):
            options = settings("f32", block_layers=size)
            self.assert_same_training(self.streamed(ranks, **options), self.stored(**options))

    def test_all_layers_in_one_block(self):
        options = settings("bf16", block_layers=LAYERS)
        self.assert_same_training(self.streamed(1, **options), self.stored(**options))

    def test_several_epochs_flow_again(self):
        options = settings("bf16", steps=0, epochs=3, block_layers=4)
        work = self.streamed(4, **options)
        self.assert_same_training(work, self.stored(**options))
        self.assertEqual(len(support.train_lines(work / "transfer" / "block_03.jsonl")), 6)  # 5 sequences in batches of 3

    def test_nothing_held_out(self):
        options = settings("f32", validation=0, eval_every=1, plateau_patience=0, plateau_factor=0.5, block_layers=5)
        work = self.streamed(3, **options)
        self.assert_same_training(work, self.stored(**options))
        rates = {line["lr"] for line in support.train_lines(work / "transfer" / "block_02.jsonl")}
        self.assertGreater(len(rates), 1, "the schedule follows the training loss")

    def test_micro_batches_of_several_sequences(self):
        options = settings("f32", micro_batch=2, xent_factor=1, block_layers=4)
        self.assert_same_training(self.streamed(4, **options), self.stored(**options))

    def test_states_in_a_wider_type_than_they_are_kept_in(self):
        options = settings("bf16", hidden_dtype="f32", block_layers=4)
        self.assert_same_training(self.streamed(2, **options), self.stored(**options))

    def test_gradients_of_the_first_batch(self):
        options = settings("f32", block_layers=3)
        files = {}
        for name, work in (("stored", self.path("a")), ("streamed", self.path("b"))):
            files[name] = self.path(f"{name}.h5")
            if name == "stored":
                support.run("hidden", 0, 1, work=work, **options)
            support.run("block" if name == "stored" else "convert", 5, 1, work=work, dump_gradients=files[name],
                        **options)
        arrays, expected = (support.read_hdf5(files[name]) for name in ("streamed", "stored"))
        self.assertEqual(sorted(arrays), sorted(expected))
        for name, array in expected.items():
            self.assert_same_numbers(arrays[name], array, name)

    def test_golden_model(self):
        for dtype in ("f32", "bf16"):
            options = settings(dtype, model=support.GOLDEN / "model", tokens=support.GOLDEN / "tokens_T96.h5",
                               validation=0, batch_size=2, steps=3, window=16)
            self.assert_same_training(self.streamed(2, **options), self.stored(**options))


class DataRanks(ConvertTest):
    def test_mesh_equals_the_stored_form_on_as_many_ranks(self):
        """28 ranks are 14 x 2 in both: the same ranks sum the same sequences."""
        options = settings("f32")
        work = self.streamed(28, **options)
        self.assert_same_training(work, self.stored(28, **options))
        self.assert_near_training(work, self.stored(**options))

    def test_other_meshes_are_near(self):
        options = settings("f32", block_layers=4)
        for ranks, pipeline in ((4, 2), (8, 4), (6, 1)):  # some of six ranks have no sequence of a batch of three
            work = self.streamed(ranks, pipeline_ranks=pipeline, **options)
            self.assert_near_training(work, self.stored(**options))

    def test_miniature_of_126_layers(self):
        model = support.make_miniature(self.path("model"), layers=126, shards=5)
        options = settings("bf16", model=model, tokens=model / "tokens.h5", block_layers=9, window=16, steps=3,
                           batch_size=2)
        stored = self.stored(14, **options)
        self.assert_same_training(self.streamed(14, **options), stored)
        self.assert_near_training(self.streamed(28, **options), stored)


class Restart(ConvertTest):
    """Whatever stops a run, and on how many ranks it goes on: the same files in the end."""

    OPTIONS = {"block_layers": 4, "steps": 40, "checkpoint_every": 3, "eval_every": 5}

    def interrupted(self, ranks, number, **options):
        """A work directory whose run got this signal in the middle, and the status that it ended with."""
        work = self.path(f"interrupted{len(list(self.directory.iterdir()))}")
        line = support.command_line("convert", {"work": work, **options}, ranks)
        with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              env=dict(os.environ, OMP_NUM_THREADS="1"), start_new_session=True) as process:
            log, state = work / "transfer" / "block_03.jsonl", work / "transfer" / "state" / "block_00"
            while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 8
                                                  and list(state.glob("step_*"))):
                time.sleep(0.005)
            if number == signal.SIGKILL:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)  # mpirun hands it on
            process.communicate(timeout=120)
        self.assertNotEqual(process.returncode, 0, "the run was over before the signal")
        return work, process.returncode

    def resume(self, work, ranks, expected, **options):
        support.run("convert", ranks, 1, work=work, take_over=True, **options)
        self.assert_same_training(work, expected)
        for path in (expected / "transfer").glob("*.safetensors"):
            self.assertEqual((work / "transfer" / path.name).read_bytes(), path.read_bytes(), path.name)

    def test_signal_and_other_ranks(self):
        options = settings("f32", **self.OPTIONS)
        work, status = self.interrupted(4, signal.SIGUSR1, **options)
        self.assertEqual(status, 85)
        steps = {len(support.train_lines(log)) for log in (work / "transfer").glob("*.jsonl")}
        self.assertEqual(len(steps), 1, "all blocks stop at one step")
        self.resume(work, 2, self.stored(**options), **options)

    def test_killed(self):
        options = settings("bf16", **self.OPTIONS)
        work, _ = self.interrupted(2, signal.SIGKILL, **options)
        self.resume(work, 4, self.stored(**options), **options)

    def test_blocks_at_other_steps_let_the_stream_through(self):
        options = settings("f32", **self.OPTIONS)
        work, _ = self.interrupted(4, signal.SIGUSR1, **options)
        shutil.rmtree(work / "transfer" / "state" / "block_02")  # begins anew, while the others wait
        self.resume(work, 4, self.stored(**options), **options)

    def test_finished_blocks_are_left_alone(self):
        options = settings("f32", **self.OPTIONS)
        work = Path(shutil.copytree(self.stored(**options), self.path("work")))
        shutil.rmtree(work / "hidden")  # the stream needs none
        (work / "transfer" / "block_02.safetensors").unlink()
        (work / "transfer" / "block_02.jsonl").unlink()
        before = {path.name: path.stat().st_mtime_ns for path in (work / "transfer").glob("block_*")}
        self.resume(work, 4, self.stored(**options), **options)
        after = {path.name: path.stat().st_mtime_ns for path in (work / "transfer").glob("block_*")}
        self.assertEqual({name: after[name] for name in before}, before)
        done = support.attempt("block", 2, 1, work=work, **options)  # without hidden states
        self.assertEqual((done.returncode, done.stderr.count("is trained already")), (0, 4))

    def test_wall_time(self):
        options = settings("f32", **self.OPTIONS)
        done = support.attempt("convert", 2, 1, work=self.path("work"), wall_time=1, **options)
        self.assertEqual(done.returncode, 85)
        self.resume(self.path("work"), 2, self.stored(**options), **options)


class Report(ConvertTest):
    def test_figures_of_the_run(self):
        for ranks, links, dtype, number in ((4, 3, "f32", 4), (2, 1, "bf16", 2), (1, 0, "f32", 4)):
            options = settings(dtype, block_layers=4)  # 4 blocks
            work = self.streamed(ranks, **options)
            report = json.loads((work / "transfer" / "run.json").read_text())
            sequences = 3 + 2 + 3 + 2 + 3 + 4 * 2  # five batches of five sequences by three, four evaluations of two
            self.assertEqual(report["tokens"], sequences * 53)
            self.assertEqual(report["bytes_sent"], sequences * 53 * 32 * number * links)
            self.assertEqual((report["ranks"], report["pipeline_ranks"]), (ranks, ranks))
            for part in ("compute_seconds", "wait_seconds", "file_seconds"):
                self.assertTrue(0 <= report[part]["mean"] <= report[part]["largest"] <= report["seconds"]["largest"])
            parts = sum(report[part]["mean"] for part in ("compute_seconds", "wait_seconds", "file_seconds"))
            self.assert_close(parts, report["seconds"]["mean"], 1e-9)
            self.assertGreater(report["memory"]["mean"], 1e6)


class Plan(ConvertTest):
    """lolcats_plan against runs of a miniature wide enough that its weights weigh more than the program."""

    def measured(self, ranks, **options):
        work = self.streamed(ranks, **options)
        return {**options, "plan_measured": work / "transfer" / "run.json"}

    def test_bytes_and_memory_are_predicted(self):
        model = support.make_miniature(self.path("model"), layers=6, hidden=1024, heads=8, kv_heads=4, intermediate=3072,
                                       sequences=4, length=64)
        for size, ranks in ((3, 2), (1, 6)):
            options = settings("bf16", model=model, tokens=model / "tokens.h5", block_layers=size, batch_size=2, steps=2)
            text = support.run("plan", **self.measured(ranks, **options))
            print("\n" + text)
            for quantity in ("between stages", "memory, a rank"):
                ratio = float(re.search(rf"{quantity} .* ratio (\S+)", text).group(1))
                self.assertTrue(0.85 <= ratio <= 1.15, text)

    def test_a_run_of_other_settings_is_told_apart(self):
        options = self.measured(2, **settings("f32"))
        report = json.loads(options["plan_measured"].read_text())
        report["bytes_sent"] *= 1.2
        options["plan_measured"].write_text(json.dumps(report))
        self.assert_fails(support.attempt("plan", **options), "run.json", "15 %")

    def test_what_is_no_run_of_the_stream(self):
        options = settings("f32")
        report = self.stored(**options) / "transfer" / "run.json"
        self.assert_fails(support.attempt("plan", plan_measured=report, **options), "run.json", "lolcats_block")
        report = self.path("run.json")
        for content in ("{", "{}", '{"program": "lolcats_convert"}'):
            report.write_text(content)
            self.assert_fails(support.attempt("plan", plan_measured=report, **options), "run.json")


class Errors(ConvertTest):
    def test_loss_that_is_not_finite_ends_all_ranks(self):
        weights = support.read_safetensors(MODEL / "model.safetensors")
        weights["model.layers.9.self_attn.q_proj.weight"][0, 0] = np.inf
        model = self.path("model")
        shutil.copytree(MODEL, model)
        support.write_safetensors(model / "model.safetensors", weights)
        for ranks in (1, 4):
            done = support.attempt("convert", ranks, 1, work=self.path("work"), **settings("f32", model=model))
            self.assert_fails(done, "block 9", "the loss of layer 9 is", "step 0")
            self.assertFalse((self.path("work") / "transfer" / "block_09.safetensors").exists())

    def test_store_that_would_round(self):
        done = support.attempt("convert", 2, 1, work=self.path("work"), **settings("f32", hidden_dtype="bf16"))
        self.assert_fails(done, "hidden-dtype", "leave hidden-dtype out")

    def test_more_pipeline_ranks_than_blocks(self):
        done = support.attempt("convert", 4, 1, work=self.path("work"),
                               **settings("f32", block_layers=7, pipeline_ranks=4))
        self.assert_fails(done, "pipeline-ranks is 4")


if __name__ == "__main__":
    unittest.main()
