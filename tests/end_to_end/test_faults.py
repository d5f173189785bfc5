#!/usr/bin/env python3
"""Runs that fail half-way: numbers that are not finite, full and read-only disks, killed ranks.

After each of them nothing is there that a later stage takes as whole, what an earlier run completed is untouched, and
running the stage again repairs it.
"""

import os
import shutil
import signal
import subprocess
import time
import unittest

import numpy as np

import support
from support import GOLDEN

TOKENS = GOLDEN / "tokens_T96.h5"
MAPS = GOLDEN / "feature_maps.safetensors"


class Fault(support.TestCase):
    """The golden model in WORK, stage by stage."""

    def setUp(self):
        super().setUp()
        self.model = GOLDEN / "model"
        self.tokens = TOKENS
        self.work = self.path("work")

    def options(self, **changes):
        return {"model": self.model, "tokens": self.tokens, "dtype": "f32", "window": 16, "work": self.work,
                "block_layers": 1, **changes}

    def fails(self, program, *words, ranks=0, **changes):
        done = support.attempt(program, ranks, threads=1, timeout=60, **self.options(**changes))
        self.assert_fails(done, f"lolcats_{program}: error: ", *map(str, words))
        self.assertEqual(done.returncode, 1, done.stderr[-2000:])  # not a signal's
        self.assertEqual(done.stdout, "")

    def succeeds(self, program, ranks=0, **changes):
        return support.run(program, ranks, threads=1, timeout=120, **self.options(**changes))

    def results(self, directory):
        """Contents of what a later stage reads in WORK/directory."""
        return {path.name: path.read_bytes() for pattern in ("*.safetensors", "adapter_config.json")
                for path in (self.work / directory).glob(pattern)}


class NotFinite(Fault):
    """NaN and infinity end a run before anything is written from them."""

    def damage_weights(self, name="self_attn.q_proj"):
        self.model = self.path("model")
        shutil.copytree(GOLDEN / "model", self.model)
        weights = self.model / "model.safetensors"
        arrays = {name: array.copy() for name, array in support.read_safetensors(weights).items()}
        arrays[f"model.layers.1.{name}.weight"][3, 4] = np.nan
        support.write_safetensors(weights, arrays)

    def test_weights_in_stage_0(self):
        self.damage_weights("mlp.down_proj")  # the last thing of block 0
        for ranks in (0, 4):
            with self.subTest(ranks=ranks):
                self.fails("hidden", "block_01.h5", "sequence", "not finite", block_layers=2, ranks=ranks)
                self.fails("block", "block_01.h5", "0 of 3 sequences", "lolcats_hidden", block_layers=2, steps=1)
                self.assertFalse((self.work / "hidden" / "all.h5").exists())

    def test_weights_in_stage_1(self):
        self.damage_weights()
        for ranks in (0, 4):
            with self.subTest(ranks=ranks):
                self.fails("block", self.model, "loss of layer 1 is", "nan", block_layers=0, steps=1, ranks=ranks)
                self.assertEqual(self.results("transfer"), {})

    def test_weights_in_stage_2(self):
        self.damage_weights()
        for ranks in (0, 4):
            with self.subTest(ranks=ranks):
                self.fails("lora", self.model, "loss is", "nan", feature_maps=MAPS, steps=1, ranks=ranks)
                self.assertEqual(self.results("lora"), {})

    def test_weights_in_evaluation(self):
        self.damage_weights()
        logits = self.path("logits.h5")
        for ranks in (0, 4):
            with self.subTest(ranks=ranks):
                self.fails("eval", self.model, "loss is", "nan", attention="teacher", save_logits=logits, ranks=ranks)
                self.assertEqual(list(self.directory.glob("logits.h5*")), [])

    def test_diverging_stage_1_leaves_the_old_block(self):
        self.succeeds("block", block_layers=0, steps=1)
        old = self.results("transfer")
        self.assertEqual(list(old), ["block_00.safetensors"])
        self.fails("block", "block 0", "--lr", block_layers=0, steps=5, lr=1e38)
        self.assertEqual(self.results("transfer"), old)

    def test_diverging_stage_2_leaves_the_old_adapter(self):
        self.succeeds("lora", feature_maps=MAPS, steps=1)
        old = self.results("lora")
        self.assertEqual(len(old), 2)
        self.fails("lora", "--lr", feature_maps=MAPS, steps=5, lr=1e38)
        self.assertEqual(self.results("lora"), old)


def mount(*options):
    return subprocess.run(["mount", "-t", "tmpfs", *options], capture_output=True, text=True, check=False)


class SmallDisk(Fault):
    """WORK on a file system of its own, whose size is counted in pages of 4 KiB."""

    def mount_work(self, kilobytes):
        self.work.mkdir()
        if not shutil.which("mount"):
            self.skipTest("no mount command")
        done = mount("-o", f"size={kilobytes}k", "lolcats-test", str(self.work))
        if done.returncode != 0:
            self.skipTest(f"cannot mount a tmpfs: {done.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(self.work)], check=True)

    def fill(self, leave):
        """Leaves so many kilobytes free."""
        free = os.statvfs(self.work)
        size = free.f_bavail * free.f_frsize - leave * 1024
        (self.work / "ballast").write_bytes(bytes(size))

    def free(self):
        (self.work / "ballast").unlink()

    def resize(self, kilobytes):
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(self.work)], check=True)


class DiskFull(SmallDisk):

    def test_stage_0(self):
        self.mount_work(kilobytes=1000)
        for ranks, kilobytes in ((0, 100), (4, 100)):
            with self.subTest(ranks=ranks, kilobytes=kilobytes):
                self.resize(kilobytes)  # of 72 KiB for each of two blocks
                self.fails("hidden", "block_0", "free", "lolcats_hidden", ranks=ranks)
                self.assertFalse((self.work / "hidden" / "all.h5").exists())
                self.resize(kilobytes=1000)
                self.fails("block", "block_0", "lolcats_hidden", steps=1)
                self.succeeds("hidden", ranks)
                self.succeeds("block", steps=1)
                for place in ("hidden", "transfer"):
                    shutil.rmtree(self.work / place)

    def test_stage_1(self):
        self.mount_work(kilobytes=1000)
        self.succeeds("hidden")
        self.succeeds("block", steps=1)
        old = self.results("transfer")
        self.assertEqual(len(old), 3)
        for leave, ranks in ((0, 0), (4, 0), (4, 4)):
            with self.subTest(leave=leave, ranks=ranks):
                self.fill(leave)
                self.fails("block", "block_0" if leave else "attempts", "free", steps=2, ranks=ranks)
                self.free()
                if ranks == 0:
                    self.assertEqual(self.results("transfer"), old)
                self.succeeds("lora", steps=1)  # where several ranks write, some may have had the space
        self.succeeds("block", steps=2)
        self.assertNotEqual(self.results("transfer"), old)

    def test_stage_2(self):
        """Wherever the space ends, weights and what describes them stay together."""
        self.mount_work(kilobytes=1000)
        self.succeeds("lora", steps=1, feature_maps=MAPS)
        old = self.results("lora")
        self.assertEqual(len(old), 2)
        for leave in range(0, 100, 4):
            self.fill(leave)
            done = support.attempt("lora", threads=1, **self.options(steps=1, feature_maps=MAPS, lora_alpha=5))
            self.free()
            if done.returncode == 0:
                break
            self.assert_fails(done, str(self.work), "free")
            self.assertEqual(self.results("lora"), old, leave)
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        self.assertGreater(leave, 40)
        self.succeeds("eval", feature_maps=MAPS, adapter=self.work / "lora", attention="terrace")

    def test_logits(self):
        self.mount_work(kilobytes=64)  # of 144 KiB
        logits = self.work / "logits.h5"
        for ranks, kilobytes in ((0, 4), (0, 64), (0, 144), (4, 64), (4, 144)):
            with self.subTest(ranks=ranks, kilobytes=kilobytes):
                self.resize(kilobytes)
                self.fails("eval", logits, "No space left", "free", attention="teacher", save_logits=logits,
                           ranks=ranks)
                self.assertEqual(list(self.work.iterdir()), [])

    def test_gradients(self):
        self.mount_work(kilobytes=16)
        for program, changes in {"lora": {"feature_maps": MAPS}, "block": {"block_layers": 0}}.items():
            with self.subTest(program=program):
                self.fails(program, "No space left", "free", steps=1, work=self.path("other"),
                           dump_gradients=self.work / "gradients.h5", **changes)
                self.assertEqual(list(self.work.iterdir()), [])


class ReadOnly(SmallDisk):

    def test_every_stage(self):
        self.mount_work(kilobytes=1000)
        self.succeeds("hidden")
        subprocess.run(["mount", "-o", "remount,ro", str(self.work)], check=True)
        for program, changes in {"hidden": {"dtype": "bf16"}, "block": {"steps": 1},
                                 "lora": {"steps": 1, "feature_maps": MAPS},
                                 "eval": {"attention": "teacher", "save_logits": self.work / "logits.h5"}}.items():
            for ranks in (0, 4):
                with self.subTest(program=program, ranks=ranks):
                    self.fails(program, self.work, "only", "check" if program != "eval" else "name a file elsewhere",
                               ranks=ranks, **changes)


class Killed(Fault):
    """One of four ranks dies by SIGKILL in the middle of a stage."""

    def start(self, program, **changes):
        log = open(self.path("log"), "wb")
        self.addCleanup(log.close)
        line = support.command_line(program, self.options(**changes), 4)
        process = subprocess.Popen(line, stdout=log, stderr=log, env=dict(os.environ, OMP_NUM_THREADS="1"))
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def wait_until(self, ready, process):
        deadline = time.monotonic() + 60
        while not ready():
            self.assertIsNone(process.poll(), self.path("log").read_text(encoding="utf-8")[-2000:])
            self.assertLess(time.monotonic(), deadline, "nothing happened in time")
            time.sleep(0.005)

    def kill_one(self, process):
        """Kills a rank and checks that all of them end, in seconds and not with status 0."""
        ranks = support.descendants(process.pid)
        self.assertEqual(len(ranks), 4)
        start = time.monotonic()
        os.kill(ranks[2], signal.SIGKILL)
        status = process.wait(timeout=30)
        self.assertLess(time.monotonic() - start, 15)
        self.assertNotEqual(status, 0)
        while any(map(support.is_running, ranks)):
            self.assertLess(time.monotonic() - start, 15, "a rank goes on")
            time.sleep(0.05)

    def test_stage_0(self):
        sequences = 1500
        self.tokens = support.write_tokens(
            self.path("tokens.h5"), np.random.default_rng(1).integers(0, 128, (sequences, 96)))
        process = self.start("hidden")
        log = self.path("log")
        self.wait_until(lambda: b"hidden states of 64 of" in log.read_bytes(), process)
        self.kill_one(process)
        self.assertFalse((self.work / "hidden" / "all.h5").exists())
        self.fails("block", "block_0", f"of {sequences} sequences", "lolcats_hidden", steps=1)
        self.succeeds("hidden", ranks=4)
        reference = self.path("reference")
        self.succeeds("hidden", work=reference)
        for block in (1, 2):
            self.assert_same_numbers(support.read_hidden(self.work, block), support.read_hidden(reference, block))

    def test_stage_1(self):
        self.model = support.make_miniature(self.path("mini"), layers=8)
        self.tokens = self.model / "tokens.h5"
        self.succeeds("hidden", ranks=4)
        transfer = self.work / "transfer"
        # Eight blocks dealt to four ranks: when one is there the second half has not begun.
        process = self.start("block", steps=20)
        self.wait_until(lambda: (transfer / "block_00.safetensors").exists(), process)
        self.kill_one(process)
        there = self.results("transfer")
        self.assertLess(len(there), 8)
        self.fails("lora", "is missing", "feature maps for every layer", steps=1, feature_maps=None)
        self.succeeds("block", ranks=4, steps=20)
        self.assertEqual(len(self.results("transfer")), 8)
        for name, content in there.items():
            self.assertEqual(self.results("transfer")[name], content, name)
        self.succeeds("lora", steps=1)


if __name__ == "__main__":
    unittest.main()
