#!/usr/bin/env python3
"""Disks that fail: reads, writes and syncs of chosen files go wrong in the programs as they are.

tests/support/fault_injection.cpp is preloaded and makes the n-th call on a file fail, or do less than it was asked. Every
test asserts that the fault was met. A fault that cannot be borne ends all ranks with one line and status 1, what it left
is not taken as whole by the next stage, and the same command run again ends with the files of a run that met none. One
that can be borne changes nothing in what is written.

Each fault is tried on one rank or on four, in turn; with LOLCATS_SLOW_TESTS=1 on both.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import unittest
from pathlib import Path
from unittest import mock

import support
import test_restart
from test_restart import STAGES

LIBRARY = Path(os.environ.get("LOLCATS_FAULT_INJECTION", support.BIN.parent / "tests" / "libfault_injection.so"))
RANKS = (0, 4)
ALL = os.environ.get("LOLCATS_SLOW_TESTS") == "1"
UNDISTURBED = {}  # number of ranks: work directory of a conversion that met no fault


def setUpModule():
    test_restart.setUpModule()


def tearDownModule():
    test_restart.tearDownModule()


def on_ranks(cases):
    """Pairs of a number of ranks and a case."""
    return [(ranks, case) for i, case in enumerate(cases) for ranks in RANKS if ALL or ranks == RANKS[i % 2]]


class DiskErrors(test_restart.Restart):
    """Three blocks of two layers in WORK."""

    def undisturbed_work(self, ranks):
        if ranks not in UNDISTURBED:
            own, self.work = self.work, Path(test_restart.SHARED.name) / f"undisturbed{ranks}"
            for program in STAGES:
                self.succeeds(program, ranks)
            UNDISTURBED[ranks], self.work = self.work, own
        return UNDISTURBED[ranks]

    def begin(self, program, ranks):
        """WORK as it is before a stage."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        for place, stage in (("hidden", "block"), ("transfer", "lora")):
            if STAGES.index(program) >= STAGES.index(stage):
                shutil.copytree(self.undisturbed_work(ranks) / place, self.work / place)

    @contextlib.contextmanager
    def fault(self, call, pattern, number, effect, must_be_met=True):
        """What is started inside meets it; an error if nothing does. A pattern without * is a path in WORK."""
        log = self.path("faults")
        log.unlink(missing_ok=True)
        pattern = pattern if pattern.startswith("*") else str(self.work / pattern)
        with mock.patch.dict(os.environ, {"LD_PRELOAD": str(LIBRARY), "LOLCATS_FAULT_LOG": str(log),
                                          "LOLCATS_FAULT": f"{call} {pattern} {number} {effect}"}):
            yield
        self.assertTrue(log.exists() or not must_be_met, f"no {call} of {pattern} went wrong")

    def assert_undisturbed(self, program, ranks):
        """The stage's results are those of a run that met no fault, and nothing half-written is left."""
        place = {"hidden": "hidden/", "block": "transfer/", "lora": "lora/"}[program]
        expected = {name: content for name, content in self.results(self.undisturbed_work(ranks)).items()
                    if name.startswith(place)}
        self.assertGreater(len(expected), 1)
        self.assert_same_results({name: content for name, content in self.results().items() if name.startswith(place)},
                                 expected)
        self.assert_tidy()

    def ends_the_run(self, program, ranks, fault, *words):
        """The stage fails in one line with the words and does not go for whole; run again, it ends undisturbed."""
        with self.subTest(program=program, ranks=ranks, fault=fault):
            self.begin(program, ranks)
            with self.fault(*fault):
                self.fails(program, *words, ranks=ranks)
            self.next_stage_refuses(program)
            self.succeeds(program, ranks)
            self.assert_undisturbed(program, ranks)

    def next_stage_refuses(self, program):
        if program == "hidden":
            self.fails("block", "lolcats_hidden")
            shutil.rmtree(self.work / "transfer")
        elif program == "block":
            self.fails("lora", self.work / "transfer", train_feature_maps=False)
        else:
            done = support.attempt("eval", threads=1, model=self.model, tokens=self.tokens, dtype="f32", window=8,
                                   feature_maps=self.work / "transfer", adapter=self.work / "lora")
            self.assert_fails(done, str(self.work / "lora"))

    def is_borne(self, program, ranks, fault, *words):
        """The stage succeeds, says the words, and ends undisturbed."""
        with self.subTest(program=program, ranks=ranks, fault=fault):
            self.begin(program, ranks)
            with self.fault(*fault):
                done = self.attempt(program, ranks)
            self.assertEqual(done.returncode, 0, done.stderr[-2000:])
            for word in words:
                self.assertIn(word, done.stderr)
            self.assert_undisturbed(program, ranks)


class Writes(DiskErrors):
    def test_hidden_states(self):
        store = "hidden/block_01.h5"
        for ranks, fault in on_ranks((("write", f"*/{store}.tmp.*", 1, "EIO"), ("fsync", f"*/{store}.tmp.*", 1, "EIO"),
                                      ("rename", store, 1, "EIO"), ("fallocate", store, 1, "EIO"),
                                      ("write", store, "1+", "EIO"), ("write", store, "100+", "EIO"))):
            self.ends_the_run("hidden", ranks, fault, store, "look at the disk")
        # Not of one rank: HDF5 by itself asks again as often as a write does nothing, which Linux never lets it do.
        self.ends_the_run("hidden", 4, ("write", store, "100+", "none"), store, "look at the disk")
        for ranks, number in on_ranks((1, 100, 101, 102)):  # states, checksums and marks
            self.is_borne("hidden", ranks, ("write", store, number, "half"))

    def test_overview(self):
        for call in ("write", "fsync", "rename"):
            self.begin("hidden", 0)
            with self.fault(call, "*/hidden/all.h5*", 1, "EIO"):
                self.fails("hidden", self.work / "hidden" / "all.h5", "nput/output error")
            self.succeeds("hidden")
            self.assert_undisturbed("hidden", 0)

    def results_of(self, program, file, log):
        for ranks, fault in on_ranks((("write", f"*/{file}.tmp.*", 1, "EIO"), ("write", f"*/{file}.tmp.*", 2, "none"),
                                      ("fsync", f"*/{file}.tmp.*", 1, "EIO"), ("rename", file, 1, "EIO"),
                                      ("write", log, 3, "EIO"))):
            self.ends_the_run(program, ranks, fault, log if log in fault else file, "look at the disk",
                              "nput/output error" if "EIO" in fault else "nothing was written")

    def checkpoints_of(self, program, place):
        for ranks, (call, pattern) in on_ranks((("write", "*/block_01.h5*"), ("fsync", "*/block_01.h5*"),
                                                ("fsync", "step_*"), ("write", "*/complete.json*"),
                                                ("rename", "step_????????"))):
            self.is_borne(program, ranks, (call, f"*/{place}/{pattern}", 1, "EIO"), "no checkpoint of step",
                          "nput/output error")
        self.is_borne(program, 4, ("write", f"*/{place.split('/', maxsplit=1)[0]}/*", "1+", "half"))

    def test_feature_maps(self):
        self.results_of("block", "transfer/block_01.safetensors", "transfer/block_01.jsonl")

    def test_adapter(self):
        self.results_of("lora", "lora/adapter_model.safetensors", "lora/lora.jsonl")

    def test_checkpoints_of_stage_1(self):
        self.checkpoints_of("block", "transfer/state/block_01")

    def test_checkpoints_of_stage_2(self):
        self.checkpoints_of("lora", "lora/state")

    def test_checkpoints_that_are_removed_in_part(self):
        """They are not taken for damaged ones of who knows what: nothing of them is left by the next run."""
        for ranks, (program, place) in on_ranks((("block", "transfer"), ("lora", "lora"))):
            with self.subTest(program=program, ranks=ranks):
                self.begin(program, ranks)
                with self.fault("unlink", f"*/{place}/state*/step_*", "2+", "EIO"):
                    self.fails(program, self.work / place / "state", "cannot be removed: Input/output error", ranks=ranks)
                self.assertNotEqual([*(self.work / place).glob("state*")], [])
                self.succeeds(program, ranks)
                self.assert_undisturbed(program, ranks)

    def test_run_that_has_to_stop_says_what_is_lost(self):
        for program, place in (("block", "transfer"), ("lora", "lora")):
            self.begin(program, 0)
            with self.fault("fsync", f"*/{place}/state/*", "1+", "EIO"):
                process = self.start(program, steps=100000)
                self.wait_until(lambda: "no checkpoint of step" in self.log(program), process, program)
                support.send(signal.SIGUSR1, process.pid)
                self.assertEqual(process.wait(timeout=60), 1)
            errors = [line for line in self.log(program).splitlines() if " error: " in line]
            self.assertEqual(len(errors), 1)
            for word in ("cannot bring to disk: Input/output error", "had to stop", str(self.work / place / "state")):
                self.assertIn(word, errors[0])
            self.assertEqual(self.checkpoints(place), [])
            self.succeeds(program)
            self.assert_undisturbed(program, 0)


class Reads(DiskErrors):
    def ends_reading(self, program, ranks, fault, *words):
        with self.subTest(program=program, ranks=ranks, fault=fault):
            self.begin(program, ranks)
            with self.fault(*fault):
                self.fails(program, *words, ranks=ranks)
            self.succeeds(program, ranks)
            self.assert_undisturbed(program, ranks)

    def test_weights(self):
        """A page of the memory-mapped file that the disk does not give."""
        fault = ("map", "*/model.safetensors", 1, "EIO")
        for ranks, program in on_ranks(STAGES):
            self.ends_reading(program, ranks, fault, self.model / "model.safetensors", "tensor ", "cannot be read",
                              "look at the disk")
        for ranks in RANKS:
            with self.fault(*fault):  # does not ask which model it is
                done = support.attempt("eval", ranks, threads=1, model=self.model, tokens=self.tokens, dtype="f32",
                                       attention="teacher")
            self.assert_fails(done, "lolcats_eval: error: ", "tensor ", "cannot be read")
            self.assertEqual(done.returncode, 1)

    def test_small_files(self):
        """What the disk does not give is not taken for an empty file, or for one that ends early."""
        model = {"model": self.model, "dtype": "f32", "attention": "teacher"}
        with self.fault("read", "*/config.json", "1+", "EIO"):
            done = support.attempt("eval", threads=1, tokens=self.tokens, **model)
        self.assert_fails(done, "config.json: cannot read: Input/output error", "look at the disk")
        prompts = self.path("prompts.jsonl")
        prompts.write_text('{"tokens": [1, 2]}\n', encoding="utf-8")
        with self.fault("read", "*/prompts.jsonl", 2, "EIO"):  # the first only tells the kind of file
            done = support.attempt("generate", threads=1, prompts=prompts, **model)
        self.assert_fails(done, "prompts.jsonl: cannot be read to its end", "look at the disk")

    def test_feature_maps(self):
        for ranks in RANKS:
            self.begin("lora", ranks)
            with self.fault("map", "transfer/block_01.safetensors", 1, "EIO"):
                self.fails("lora", "transfer/block_01.safetensors", "cannot be read", ranks=ranks,
                           train_feature_maps=False)
            self.succeeds("lora", ranks, train_feature_maps=False)

    def test_tokens(self):
        for ranks, (program, number) in on_ranks(itertools.product(STAGES, (1, 8))):
            self.ends_reading(program, ranks, ("read", "*/tokens.h5", number, "EIO"), self.tokens, "nput/output error")
        for ranks, program in on_ranks(STAGES):
            self.is_borne(program, ranks, ("read", "*/tokens.h5", "1+", "half"))

    def test_every_read_of_tokens_and_labels(self):
        """Labels that cannot be looked for are not taken for missing ones."""
        number, met = 0, True
        while met:
            number += 1
            with self.fault("read", "*/tokens.h5", number, "EIO", must_be_met=False):
                done = self.attempt("hidden", fresh=True)
            met = self.path("faults").exists()
            if met:
                self.assert_fails(done, str(self.tokens), "nput/output error")
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        self.assertGreater(number, 5)

    def test_hidden_states(self):
        store = "hidden/block_01.h5"
        for ranks, number in on_ranks((1, 8, 40)):
            self.ends_reading("block", ranks, ("read", store, number, "EIO"), store, "nput/output error")
        self.is_borne("block", 4, ("read", store, "1+", "half"))

    def test_store_is_not_given_up_for_a_read_that_fails(self):
        """What cannot be read when stage 0 is run again stays, whatever the disk says this time."""
        for ranks in RANKS:
            shutil.copytree(self.undisturbed_work(ranks), self.work)
            for number in range(1, 8, 1 if ALL else 3):
                with self.fault("read", "hidden/block_01.h5", number, "EIO"):
                    self.fails("hidden", "hidden/block_01.h5", "nput/output error", ranks=ranks)
                self.assert_undisturbed("hidden", ranks)
            shutil.rmtree(self.work)

    def test_unreadable_sequence_is_computed_again_on_request(self):
        for ranks in RANKS:
            shutil.copytree(self.undisturbed_work(ranks), self.work)
            with self.fault("read", "hidden/block_01.h5", 30, "EIO"):
                done = self.attempt("hidden", ranks, verify=True)
            self.assertEqual(done.returncode, 0, done.stderr[-2000:])
            self.assertIn("or cannot be read, and is computed again", done.stderr)
            self.assert_undisturbed("hidden", ranks)
            shutil.rmtree(self.work)

    def test_checkpoint(self):
        """One that cannot be read is passed over for the one before."""
        for program, place in (("block", "transfer"), ("lora", "lora")):
            self.begin(program, 0)
            process = self.start(program)
            self.wait_until(lambda: len(self.checkpoints(place)) >= 2, process, program)
            support.send(signal.SIGKILL, process.pid)
            process.wait()
            there = self.checkpoints(place)
            with self.fault("read", f"{there[-1]}/block_*.h5", 1, "EIO"):
                done = self.attempt(program)
            self.assertEqual(done.returncode, 0, done.stderr[-2000:])
            self.assertIn(f"{there[-1]}/block_", done.stderr)
            self.assertIn("passing over this checkpoint", done.stderr)
            self.assertIn(f"going on from {there[-2]}", done.stderr)
            self.assert_undisturbed(program, 0)


class Attempts(DiskErrors):
    """Every run asks whether a newer attempt has begun before it gives a file its name."""

    QUESTION = "attempts/000002.json"

    def test_disk_that_does_not_tell_once_is_asked_again(self):
        for ranks, program in on_ranks(STAGES):
            self.is_borne(program, ranks, ("open", self.QUESTION, 1, "EIO"))

    def test_disk_that_does_not_tell_is_no_newer_attempt(self):
        for ranks, program in on_ranks(STAGES):
            self.ends_the_run(program, ranks, ("open", self.QUESTION, "1+", "EIO"), self.QUESTION,
                              "cannot tell whether another attempt has begun: Input/output error",
                              "look at the disk, then run the same command again")


class StandardOutput(DiskErrors):
    """Results that do not get out fail the run."""

    def fails_on_a_full_disk(self, program, **options):
        line = support.command_line(program, {"model": self.model, **options}, 0)  # mpirun would write by itself
        with self.subTest(program=program), open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
                                  env=dict(os.environ, OMP_NUM_THREADS="1"))
            self.assert_fails(done, f"lolcats_{program}: error: standard output: ", "free space", "run the same")
            self.assertEqual(done.returncode, 1, done.stderr[-2000:])

    def test_full(self):
        done_file = self.path("done")
        prompts = self.path("prompts.jsonl")
        prompts.write_text('{"tokens": [1, 2]}\n', encoding="utf-8")
        settings = {"dtype": "f32", "window": 8, "done_file": done_file}
        self.fails_on_a_full_disk("eval", tokens=self.tokens, **settings)
        state = self.path("state.h5")
        self.fails_on_a_full_disk("generate", prompts=prompts, max_new_tokens=2, save_state=state, **settings)
        self.assertFalse(state.exists(), "it would be ahead of the texts")
        self.fails_on_a_full_disk("plan", plan_length=48, **settings)
        self.fails_on_a_full_disk("plan", help=True)
        self.assertFalse(done_file.exists())


if __name__ == "__main__":
    unittest.main()
