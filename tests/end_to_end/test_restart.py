#!/usr/bin/env python3
"""Runs that are killed, stopped or started twice, and what goes on from them.

A run that was killed or stopped and started again must end with the files of one that was never disturbed, byte for
byte on the same number of ranks. LOLCATS_KILLS sets how many kills at random moments are tried (default 6) and
LOLCATS_SEED which.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import h5py
import numpy as np

import support

KILLS = int(os.environ.get("LOLCATS_KILLS", "6"))
SEED = int(os.environ.get("LOLCATS_SEED", "1"))
STAGES = ("hidden", "block", "lora")
REQUEUE = 85
NEAR = 1e-6


def setUpModule():
    """A miniature of three blocks of two layers."""
    global SHARED, MODEL
    SHARED = tempfile.TemporaryDirectory(prefix="lolcats-restart-")
    MODEL = support.make_miniature(Path(SHARED.name) / "model", layers=6, sequences=120, length=48, hidden=64,
                                   vocab=61, heads=4, kv_heads=2, dtype="f32")


def tearDownModule():
    SHARED.cleanup()


class Restart(support.TestCase):
    """The three stages on the miniature in WORK."""

    def setUp(self):
        super().setUp()
        self.model = MODEL
        self.tokens = MODEL / "tokens.h5"
        self.work = self.path("work")
        self.block_layers = 2

    def options(self, program, **changes):
        settings = {"model": self.model, "tokens": self.tokens, "dtype": "f32", "window": 8, "work": self.work,
                    "block_layers": self.block_layers, "batch_size": 4}
        if program != "hidden":
            settings |= {"validation": 2, "eval_every": 3, "shuffle": True, "checkpoint_every": 2, "lr": 1e-3,
                         "steps": 12, "plateau_patience": 1}
        if program == "lora":
            settings |= {"lora_dropout": 0.1, "train_feature_maps": True}
        return {**settings, **changes}

    def succeeds(self, program, ranks=0, **changes):
        return support.run(program, ranks, threads=1, **self.options(program, **changes))

    def attempt(self, program, ranks=0, **changes):
        return support.attempt(program, ranks, threads=1, **self.options(program, **changes))

    def fails(self, program, *words, ranks=0, **changes):
        done = self.attempt(program, ranks, **changes)
        self.assert_fails(done, f"lolcats_{program}: error: ", *map(str, words))
        self.assertEqual(done.returncode, 1, done.stderr[-2000:])
        return done

    def start(self, program, ranks=0, **changes):
        log = open(self.path(f"log-{program}"), "wb")
        self.addCleanup(log.close)
        line = support.command_line(program, self.options(program, **changes), ranks)
        process = subprocess.Popen(line, stdout=log, stderr=log, env=dict(os.environ, OMP_NUM_THREADS="1"))
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def log(self, program):
        return self.path(f"log-{program}").read_text(encoding="utf-8")

    def wait_until(self, ready, process, program):
        deadline = time.monotonic() + 60
        while not ready():
            self.assertIsNone(process.poll(), self.log(program)[-2000:])
            self.assertLess(time.monotonic(), deadline, "nothing happened in time")
            time.sleep(0.002)

    def kill(self, process, victims, program="block"):
        """SIGKILL to these; returns when every process of the run has gone."""
        family = [process.pid, *support.descendants(process.pid)]
        support.send(signal.SIGKILL, *victims)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:  # mpirun does not notice a rank that dies in MPI_Init
            self.assertNotIn(" rank", self.log(program), "the program has begun, and its other ranks go on")
            support.send(signal.SIGKILL, *family)
            process.wait()
        deadline = time.monotonic() + 15
        while any(map(support.is_running, family[1:])):
            self.assertLess(time.monotonic(), deadline, "a rank goes on")
            time.sleep(0.01)

    def checkpoints(self, place):
        """Complete ones, oldest first. The program renames meanwhile: os.walk passes over what has just gone."""
        return sorted(Path(parent, name) for parent, names, _ in os.walk(self.work / place / "state")
                      for name in names if re.fullmatch(r"step_\d+", name))

    def stop_in(self, program, place, ranks=0, stop=signal.SIGUSR1, **changes):
        """Stops the stage by a signal once it has a checkpoint in `place`; it must end with status 85."""
        process = self.start(program, ranks, **changes)
        self.wait_until(lambda: self.checkpoints(place), process, program)
        support.send(stop, process.pid)
        self.assertEqual(process.wait(timeout=60), REQUEUE, self.log(program)[-2000:])

    def results(self, work=None):
        """All that the stages leave for others, by name: bytes of files, and logs but for the speed."""
        work = work or self.work
        found = {}
        for pattern in ("hidden/*.h5", "transfer/*.safetensors", "lora/*.safetensors", "lora/*.json"):
            found |= {str(path.relative_to(work)): path.read_bytes() for path in work.glob(pattern)}
        for pattern in ("transfer/*.jsonl", "lora/*.jsonl"):
            for path in work.glob(pattern):
                lines = support.read_log(path)
                found[str(path.relative_to(work))] = [
                    {key: value for key, value in line.items() if key != "tokens_per_second"} for line in lines]
        return found

    def assert_same_results(self, actual, expected, what=""):
        self.assertEqual(sorted(actual), sorted(expected), what)
        for name, content in expected.items():
            self.assertTrue(actual[name] == content, f"{what}: {name} differs")

    def assert_tidy(self):
        """Nothing half-written and no state of finished trainings is left."""
        left = [path for path in self.work.rglob("*") if ".tmp." in path.name or path.name.startswith("step_")]
        self.assertEqual(left, [])

    def undisturbed(self, ranks, stages=STAGES, **changes):
        """Results of a run in a directory of its own."""
        own, self.work = self.work, self.path(f"undisturbed{ranks}")
        for program in stages:
            self.succeeds(program, ranks, **({} if program == "hidden" else changes))
        expected, self.work = self.results(), own
        return expected


class Kills(Restart):
    def kill_at_random(self, chance, program, ranks, seconds):
        """Runs the stage; kills all of it or one rank at a random moment. True if it was killed before it ended."""
        process = self.start(program, ranks)
        try:
            status = process.wait(timeout=chance.uniform(0, 1.2 * seconds))
            self.assertEqual(status, 0, self.log(program)[-2000:])
            return False
        except subprocess.TimeoutExpired:
            family = support.descendants(process.pid)
            self.kill(process, [process.pid, *family] if not family or chance.random() < 0.7 else
                      [chance.choice(family)], program)
            return process.returncode != 0

    def test_random_kills(self):
        chance = random.Random(SEED)
        expected, seconds = {}, {}
        for ranks in (0, 4):
            self.work = self.path(f"undisturbed{ranks}")
            for program in STAGES:
                start = time.monotonic()
                self.succeeds(program, ranks)
                seconds[program, ranks] = time.monotonic() - start
            expected[ranks] = self.results()
            self.assertEqual(len(expected[ranks]), 13)
        killed = {program: 0 for program in STAGES}
        conversions = 0
        while sum(killed.values()) < KILLS:
            ranks = (0, 4)[conversions % 2]
            conversions += 1
            self.work = self.path(f"work{conversions}")
            for program in STAGES:
                for _ in range(2):
                    if sum(killed.values()) < KILLS and self.kill_at_random(chance, program, ranks,
                                                                            seconds[program, ranks]):
                        killed[program] += 1
                self.succeeds(program, ranks)
            self.assert_same_results(self.results(), expected[ranks], f"conversion {conversions}, {killed}")
            self.assert_tidy()
            shutil.rmtree(self.work)
        print(f"{sum(killed.values())} kills ({killed}) in {conversions} conversions", flush=True)


class Signals(Restart):
    def test_stage_0(self):
        self.tokens = support.write_tokens(self.path("tokens.h5"),
                                           np.random.default_rng(1).integers(0, 61, (1200, 48)))
        for ranks in (0, 4):
            process = self.start("hidden", ranks)
            self.wait_until(lambda: "hidden states of 64 of" in self.log("hidden"), process, "hidden")
            support.send(signal.SIGUSR1, process.pid)
            self.assertEqual(process.wait(timeout=60), REQUEUE, self.log("hidden")[-2000:])
            self.assertFalse((self.work / "hidden" / "all.h5").exists())
            with h5py.File(self.work / "hidden" / "block_01.h5") as file:
                self.assertTrue(0 < file["done"][()].sum() < 1200)
            self.succeeds("hidden", ranks)
            self.assert_same_results(self.results(), self.undisturbed(ranks, ["hidden"]))
            shutil.rmtree(self.work)

    def test_training(self):
        for ranks in (0, 4):
            for program, place in (("block", "transfer"), ("lora", "lora")):
                self.succeeds("hidden", ranks)
                if program == "lora":
                    self.succeeds("block", ranks)
                self.stop_in(program, place, ranks, stop=signal.SIGUSR1 if ranks else signal.SIGTERM)
                self.assertNotIn("error", self.log(program))
                self.succeeds(program, ranks)
            self.assert_same_results(self.results(), self.undisturbed(ranks), f"{ranks} ranks")
            self.assert_tidy()
            shutil.rmtree(self.work)

    def test_signal_to_one_rank_stops_all(self):
        """Blocks that need nothing of each other; one of the ranks is told."""
        self.succeeds("hidden")
        process = self.start("block", 3, steps=400)
        self.wait_until(lambda: len(self.checkpoints("transfer")) >= 3, process, "block")
        support.send(signal.SIGTERM, support.descendants(process.pid)[1])
        self.assertEqual(process.wait(timeout=60), REQUEUE, self.log("block")[-2000:])
        self.assertEqual(list((self.work / "transfer").glob("*.safetensors")), [])

    def test_wall_time(self):
        self.succeeds("hidden")
        for program, ranks in (("block", 2), ("lora", 0)):
            if program == "lora":
                self.succeeds("block", fresh=True)
            start = time.monotonic()
            done = self.attempt(program, ranks, steps=100000, wall_time="00:00:04")
            self.assertEqual(done.returncode, REQUEUE, done.stderr[-2000:])
            self.assertLess(time.monotonic() - start, 6)
            self.assertTrue(self.checkpoints("transfer" if program == "block" else "lora"))

    def test_wall_time_that_is_no_time(self):
        for text in ("soon", "-3", "10:00", "0"):
            self.fails("block", "--wall-time", text, wall_time=text)


class Elastic(Restart):
    """4 ranks, then 2, then 14: the same losses up to the order of sums."""

    def setUp(self):
        super().setUp()
        self.model = support.make_miniature(self.path("deep"), layers=14, sequences=18, length=48, hidden=32, vocab=61,
                                            heads=2, kv_heads=1, dtype="f32")
        self.tokens = self.model / "tokens.h5"

    def check(self, program, place, **changes):
        self.stop_in(program, place, 4, **changes)
        there = set(self.checkpoints(place))
        process = self.start(program, 2, **changes)
        self.wait_until(lambda: set(self.checkpoints(place)) - there, process, program)
        support.send(signal.SIGUSR1, process.pid)
        self.assertEqual(process.wait(timeout=60), REQUEUE, self.log(program)[-2000:])
        self.succeeds(program, 14, **changes)
        self.assert_tidy()
        return self.results()

    def compare(self, actual, expected):
        self.assertEqual(sorted(actual), sorted(expected))
        for name, lines in expected.items():
            if not name.endswith(".jsonl"):
                continue
            self.assertEqual([line["step"] for line in actual[name]], [line["step"] for line in lines])
            for mine, other in zip(actual[name], lines):
                self.assertEqual(mine.keys(), other.keys())
                for key in mine:
                    self.assert_close(mine[key], other[key], NEAR, f"{name} {key}")

    def test_stage_1(self):
        self.block_layers = 7  # of two blocks, so that ranks share one
        self.succeeds("hidden")
        actual = self.check("block", "transfer", steps=30)
        expected = self.undisturbed(0, ["hidden", "block"], steps=30)
        self.compare(actual, expected)

    def test_stage_2(self):
        self.block_layers = 1
        maps = self.path("maps")
        self.work, own = maps, self.work
        self.succeeds("block", block_layers=0, steps=1)
        self.work = own
        changes = {"feature_maps": maps / "transfer", "steps": 30, "lora_dropout": 0, "train_feature_maps": False}
        self.compare(self.check("lora", "lora", **changes), self.undisturbed(0, ["lora"], **changes))


class Locks(Restart):
    def test_second_run_is_refused(self):
        self.succeeds("hidden")
        process = self.start("block", steps=100000)
        self.wait_until(lambda: self.checkpoints("transfer"), process, "block")
        for program, ranks in (("block", 0), ("hidden", 2), ("lora", 0)):
            self.fails(program, self.work, "lolcats_block is at work", f"pid {process.pid}", ranks=ranks)
        self.assertIsNone(process.poll())
        self.kill(process, [process.pid])
        self.succeeds("block", steps=4, fresh=True)  # at once: the lock died with its owner

    def snapshot(self):
        return {str(path): path.read_bytes() for path in self.work.rglob("*") if path.is_file()}

    def test_split_brain(self):
        """An attempt that stood still while another took over ends without changing a file."""
        expected = self.undisturbed(0, ["hidden", "block"], steps=40)
        self.succeeds("hidden")
        for ranks, take_over in ((0, True), (2, False)):
            shutil.rmtree(self.work / "transfer", ignore_errors=True)
            process = self.start("block", ranks, steps=40)
            self.wait_until(lambda: self.checkpoints("transfer"), process, "block")
            stopped = support.descendants(process.pid) or [process.pid]
            support.send(signal.SIGSTOP, *stopped)
            if not take_over:  # its heart has stood still
                self.succeeds("block", steps=40, stale_after=3)
            else:
                self.succeeds("block", steps=40, take_over=True)
            before = self.snapshot()
            support.send(signal.SIGCONT, *stopped)
            status = process.wait(timeout=60)
            self.assertNotIn(status, (0, REQUEUE))
            self.assertIn("taken over", self.log("block"))
            self.assertEqual(self.snapshot(), before)
            self.assert_same_results(self.results(), expected)


    def test_deleted_records(self):
        """A run that misses its own says so: nobody has taken over."""
        self.succeeds("hidden")
        for ranks in (0, 2):
            process = self.start("block", ranks, steps=100000)
            self.wait_until(lambda: self.checkpoints("transfer"), process, "block")
            shutil.rmtree(self.work / "attempts")
            self.assertEqual(process.wait(timeout=60), 1, self.log("block")[-2000:])
            errors = [line for line in self.log("block").splitlines() if " error: " in line]
            self.assertEqual(len(errors), 1, errors)
            for words in (f"{self.work / 'attempts'} was deleted", "run the same command again"):
                self.assertIn(words, errors[0])
            shutil.rmtree(self.work / "transfer")
        self.succeeds("block", steps=4)


class StoredTeacher(Restart):
    """Stored hidden states are of one type of weights and one arithmetic, and stage 1 computes with the same."""

    TEACHER = {"dtype": "bf16", "gemm": "f32"}
    OTHERS = (("its dtype of weights is bf16, not fp8", {"dtype": "fp8"}),  # states are stored in bf16 with both
              ("its gemm is f32, not exact", {"gemm": "exact"}))

    def test_another_teacher_is_refused(self):
        self.succeeds("hidden", **self.TEACHER)
        for done in (1, 0):  # whole stores, and ones to go on with
            for block in (1, 2):
                with h5py.File(self.work / "hidden" / f"block_{block:02}.h5", "r+") as file:
                    file["done"][3:] = done
            for ranks, (words, changes) in zip((0, 2), self.OTHERS):
                self.fails("hidden", self.work / "hidden", words, "--work", "--fresh", ranks=ranks,
                           **{**self.TEACHER, **changes})
        self.succeeds("hidden", **self.TEACHER)
        for words, changes in self.OTHERS:
            self.fails("block", self.work / "hidden" / "block_01.h5", words, "lolcats_hidden --fresh", steps=1,
                       **{**self.TEACHER, **changes})
        other = {**self.TEACHER, "dtype": "fp8"}
        self.succeeds("hidden", fresh=True, **other)
        self.succeeds("block", steps=1, **other)
        for name in ("block_01.h5", "all.h5"):
            with h5py.File(self.work / "hidden" / name) as file:
                self.assertEqual([file.attrs[key].decode() for key in ("dtype", "gemm")], ["fp8", "f32"])

    def test_store_of_an_older_format_is_refused(self):
        self.succeeds("hidden")
        store = self.work / "hidden" / "block_01.h5"
        with h5py.File(store, "r+") as file:
            file.attrs["format_version"] = np.int64(1)
            del file.attrs["dtype"], file.attrs["gemm"]
        for ranks in (0, 2):
            self.fails("hidden", store, "format version 1", "--fresh", ranks=ranks)
        self.fails("block", store, "format version 1", "run lolcats_hidden again", steps=1)
        self.succeeds("hidden", fresh=True)
        self.succeeds("block", steps=1)

    def arithmetic_of_block(self, **changes):
        self.succeeds("block", steps=1, dtype="bf16", **changes)
        metadata = support.safetensors_header(self.work / "transfer" / "block_01.safetensors")["__metadata__"]
        return json.loads(metadata["settings"])["gemm"]

    def test_measured_arithmetic_is_that_of_the_stored_states(self):
        """Whatever --gemm auto would measure now: stage 1 could not go on from them otherwise."""
        kept = self.work / "arithmetic.txt"
        for gemm, other in (("f32", "bf16"), ("bf16", "f32"))[:2 if support.has_bf16_products() else 1]:
            self.succeeds("hidden", dtype="bf16", gemm=gemm)
            self.assertEqual(self.arithmetic_of_block(), gemm)
            self.assertEqual(kept.read_text(), gemm)
            kept.write_text(other)
            self.assertEqual(self.arithmetic_of_block(fresh=True), gemm)
            self.assertEqual(kept.read_text(), gemm)
            self.succeeds("hidden", dtype="bf16", fresh=True)  # which replaces them and may measure
            with h5py.File(self.work / "hidden" / "block_01.h5") as file:
                self.assertEqual(file.attrs["gemm"].decode(), kept.read_text())
            shutil.rmtree(self.work)


class Faults(Restart):
    def flip(self, path, place=None):
        content = bytearray(path.read_bytes())
        content[place if place is not None else len(content) // 2] ^= 4
        path.write_bytes(bytes(content))

    def stopped_block(self, **changes):
        """Two checkpoints of a training of one block that is not finished."""
        self.block_layers = 0
        process = self.start("block", steps=100000, **changes)
        self.wait_until(lambda: len(self.checkpoints("transfer")) >= 2, process, "block")
        self.kill(process, [process.pid])
        return self.checkpoints("transfer")

    def test_damaged_checkpoints(self):
        checkpoints = self.stopped_block()[-2:]
        self.flip(checkpoints[1] / "block_00.h5")
        process = self.start("block", steps=100000)
        self.wait_until(lambda: "going on from" in self.log("block"), process, "block")
        self.kill(process, [process.pid])
        self.assertIn(f"{checkpoints[1] / 'block_00.h5'}: does not match its checksum", self.log("block"))
        self.assertIn(f"going on from {checkpoints[0]}", self.log("block"))
        left = self.checkpoints("transfer")
        self.assertTrue(left)
        for checkpoint in left:
            (checkpoint / "block_00.h5").unlink()
        self.fails("block", left[0] / "block_00.h5", "is missing", "--fresh", steps=100000)
        self.succeeds("block", steps=4, fresh=True)

    def test_checkpoint_is_readable(self):
        """What a checkpoint says, by h5py."""
        newest = self.stopped_block()[-1]
        with h5py.File(newest / "block_00.h5") as file:
            self.assertEqual(file.attrs["step"], int(newest.name[5:]))
            self.assertEqual(json.loads(file.attrs["settings"])["steps"], 100000)
            self.assertEqual(len(file["progress"]), 9)
            for role in ("parameters", "first_moments", "second_moments", "best_parameters"):
                self.assertEqual(len(file[role]), 18)
                for name, array in file[role].items():
                    self.assertTrue(np.isfinite(array[()]).all(), name)

    def test_other_training_is_refused(self):
        newest = self.stopped_block()[-1]
        other = support.write_tokens(self.path("tokens.h5"), np.random.default_rng(1).integers(0, 61, (24, 48)))
        model = support.make_miniature(self.path("other"), layers=6, hidden=64, vocab=67, heads=4, kv_heads=2,
                                       dtype="f32")
        for words, changes in ((["tokens are others"], {"tokens": other}), (["model is another"], {"model": model}),
                               (["its lr is 0.001, not 0.01"], {"lr": 0.01})):
            self.fails("block", newest, *words, "--fresh", **{"steps": 100000, **changes})
        self.fails("block", newest.parent, "--dump-gradients", steps=100000, dump_gradients=self.path("g.h5"))

    def test_finished_blocks(self):
        """They are trained again only for other settings; of another model or other tokens they are refused."""
        self.succeeds("hidden")
        self.succeeds("block", steps=2)
        times = {path: path.stat().st_mtime_ns for path in (self.work / "transfer").glob("*.safetensors")}
        done = self.attempt("block", 2, steps=2, checkpoint_every=7, micro_batch=2, log_every=1)
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        self.assertEqual(done.stderr.count("is trained already"), 3)
        self.assertEqual({path: path.stat().st_mtime_ns for path in times}, times)
        (self.work / "transfer" / "block_01.safetensors").unlink()  # deleted between stages
        self.fails("lora", "is missing", "feature maps for every layer", train_feature_maps=False)
        self.assertEqual(self.attempt("block", steps=2).stderr.count("is trained already"), 2)
        done = self.attempt("block", steps=3)
        self.assertEqual(done.stderr.count("of other settings (its steps is 2, not 3)"), 3)
        other = support.write_tokens(self.path("tokens.h5"), np.random.default_rng(1).integers(0, 61, (24, 48)))
        self.fails("block", "block_00.safetensors", "tokens are others", "--fresh", steps=3, tokens=other)

    def test_finished_adapter(self):
        self.succeeds("block", block_layers=0, steps=1)
        settings = {"steps": 2, "train_feature_maps": False}
        self.succeeds("lora", **settings)
        maps = self.work / "lora" / "feature_maps.safetensors"
        maps.write_bytes(b"of a training that was killed")
        self.assertIn("is trained already", self.attempt("lora", 2, **settings).stderr)
        self.assertFalse(maps.exists())
        elsewhere = self.model / ".." / self.model.name
        self.assertIn("is trained already", self.attempt("lora", model=elsewhere, **settings).stderr)
        other = support.make_miniature(self.path("other"), layers=6, hidden=64, vocab=61, heads=4, kv_heads=2,
                                       dtype="f32", seed=9)
        self.fails("lora", "adapter_model.safetensors", "model is another one", "--fresh", model=other, **settings)
        (self.work / "lora" / "adapter_config.json").unlink()
        self.assertNotIn("is trained already", self.attempt("lora", **settings).stderr)
        self.succeeds("block", block_layers=0, steps=2)  # other maps
        self.assertIn("its feature-maps is", self.attempt("lora", **settings).stderr)

    def test_damaged_hidden_state(self):
        for ranks in (0, 4):
            self.succeeds("hidden", ranks)
            expected = self.results()
            path = self.work / "hidden" / "block_02.h5"
            with h5py.File(path, "r+") as file:
                states = file["hidden_states"][5]
                states[3, 7] = np.nextafter(states[3, 7], np.float32(np.inf))
                file["hidden_states"][5] = states
            self.fails("block", path, "sequence 5 does not match its checksum", "--verify", steps=50, block_layers=2,
                       ranks=ranks)
            self.succeeds("hidden", ranks)  # takes the done marks' word
            self.assertNotEqual(self.results()["hidden/block_02.h5"], expected["hidden/block_02.h5"])
            done = self.attempt("hidden", ranks, verify=True)
            self.assertEqual(done.returncode, 0, done.stderr[-2000:])
            self.assertEqual(done.stderr.count("does not match its checksum, or cannot be read, and is computed again"), 1)
            self.assertIn("block_02.h5: sequence 5", done.stderr)
            self.assert_same_results({name: content for name, content in self.results().items() if "hidden" in name},
                                     expected)
            shutil.rmtree(self.work)

    def test_contradictory_options(self):
        self.fails("hidden", "--verify", "--fresh", verify=True, fresh=True)

    def test_full_disk(self):
        """A checkpoint that finds no room is a warning and older ones stay; a run told to stop says what is lost."""
        self.work.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4000k", "lolcats-test", str(self.work)],
                                 capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            self.skipTest(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(self.work)], check=True)
        self.block_layers = 0
        for ranks, told in ((0, False), (2, False), (0, True)):
            process = self.start("block", ranks, steps=100000)
            self.wait_until(lambda: self.checkpoints("transfer"), process, "block")
            support.send(signal.SIGSTOP, *(support.descendants(process.pid) or [process.pid]))
            free = os.statvfs(self.work)
            ballast = self.work / "ballast"
            ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - 64 * 1024)))
            support.send(signal.SIGCONT, *(support.descendants(process.pid) or [process.pid]))
            self.wait_until(lambda: "no checkpoint of step" in self.log("block"), process, "block")
            there = self.checkpoints("transfer")
            self.assertTrue(there)
            if told:
                support.send(signal.SIGUSR1, process.pid)
                self.assertEqual(process.wait(timeout=60), 1)
                self.assertIn("No space left", [line for line in self.log("block").splitlines() if "error" in line][0])
            else:
                self.kill(process, [process.pid, *support.descendants(process.pid)])
            ballast.unlink()
            process = self.start("block", ranks, steps=100000)
            self.wait_until(lambda: "going on from" in self.log("block"), process, "block")
            self.kill(process, [process.pid, *support.descendants(process.pid)])


if __name__ == "__main__":
    unittest.main()
