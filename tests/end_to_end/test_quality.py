#!/usr/bin/env python3
"""Looking at the student's branches, and the options that make a model lean on more than its window.

What they compute is compared with numpy on the logits that the programs save; their kernels have tests of their own.
"""

import json
import os
import tempfile
import unittest
from pathlib import Path

import numpy as np

import support
from support import TINY

LENGTH, WINDOW, LAYERS = 96, 8, 4
NEAR = 1e-6


def setUpModule():
    """A corpus with near and far facts, and feature maps that have been trained a little."""
    global SHARED, TOKENS, MAPS
    SHARED = tempfile.TemporaryDirectory(prefix="lolcats-quality-")
    os.environ["OMP_NUM_THREADS"] = "1"
    TOKENS = support.make_corpus(Path(SHARED.name) / "tokens.h5", sequences=24, length=LENGTH, seed=5,
                                 labels="answers", **{"min-distance": 0})
    work = Path(SHARED.name) / "maps"
    support.run("block", **inputs(work), steps=12, validation=4, batch_size=4)
    MAPS = work / "transfer"


def tearDownModule():
    SHARED.cleanup()


def inputs(work, **changes):
    return {"model": TINY, "tokens": TOKENS, "dtype": "f32", "gemm": "f32", "window": WINDOW, "work": work, **changes}


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


class QualityTest(support.TestCase):
    def evaluate(self, ranks=0, **options):
        return support.evaluate(ranks=ranks, **inputs(self.path("evaluation"), feature_maps=MAPS, **options))

    def train(self, program, ranks=0, work="work", **options):
        own = {} if program == "block" else {"feature_maps": MAPS}
        support.run(program, ranks, **inputs(self.path(work), **{"steps": 6, "batch_size": 4, **own, **options}))
        return self.path(work)

    def logits(self, **options):
        file = self.path("logits.h5")
        self.evaluate(save_logits=file, micro_batch=4, **options)
        return support.read_hdf5(file)["logits"].astype(np.float64)


class Branches(QualityTest):
    def test_both_is_the_model(self):
        plain, both = self.evaluate(), self.evaluate(attention_mass=True)
        self.assert_close(both["loss"], plain["loss"], 1e-5, "loss")
        self.assertEqual(both["spans"], plain["spans"])

    def test_each_branch_is_another_model_and_sinks_may_be_all(self):
        losses = [self.evaluate(branch=branch)["loss"] for branch in ("both", "window", "linear", "window+sinks")]
        self.assertEqual(len({round(loss, 6) for loss in losses}), 4, losses)
        teacher = support.evaluate(**inputs(self.path("teacher"), attention="teacher"))["loss"]
        self.assert_close(self.evaluate(branch="window+sinks", sinks=LENGTH)["loss"], teacher, 1e-5, "all are sinks")

    def test_mass_and_distances_on_any_number_of_ranks(self):
        one = self.evaluate(attention_mass=True, micro_batch=3)
        self.assertEqual([layer["layer"] for layer in one["attention_mass"]], list(range(LAYERS)))
        for layer in one["attention_mass"]:
            self.assertTrue(0 < layer["far"] < 1 and 0 < layer["far_softmax"] < 1, layer)
        ranges = one["by_distance"]
        self.assertEqual(sum(part["spans"] for part in ranges), one["spans"])
        self.assertGreater(len(ranges), 1)
        matched = sum(part["spans"] * part["exact_match"] for part in ranges)
        self.assertAlmostEqual(matched, one["spans"] * one["exact_match"], 6)
        for layers in (1, 4):  # four pipeline stages, and four replicas of one
            several = self.evaluate(ranks=4, block_layers=layers, attention_mass=True)
            self.assertEqual(several["by_distance"], ranges)
            for mine, others in zip(several["attention_mass"], one["attention_mass"]):
                self.assert_close(mine["far"], others["far"], 1e-5, "far")
                self.assert_close(mine["far_softmax"], others["far_softmax"], 1e-5, "far_softmax")

    def test_bad_choices_are_refused(self):
        for words, options in ((("attention none has no window",), {"attention": "none", "branch": "window"}),
                               (("--branch and --attention-mass",), {"attention": "teacher", "branch": "linear"})):
            self.assert_fails(support.attempt("eval", **inputs(self.path("bad"), **options)), *words)


class WindowDropout(QualityTest):
    def test_is_the_same_for_all_ranks_and_after_a_stop(self):
        options = {"window_dropout": 0.8, "block_layers": 4, "checkpoint_every": 1}
        one = support.read_feature_maps(self.train("block", **options))
        without = support.read_feature_maps(self.train("block", work="without", **{**options, "window_dropout": 0}))
        sizes = support.read_feature_maps(self.train("block", work="sizes", window_dropout_kind="size", **options))
        convert = support.read_feature_maps(self.train("convert", work="convert", feature_maps=None, **options))
        self.assertTrue(any((one[name] != without[name]).any() for name in one))
        self.assertTrue(any((one[name] != sizes[name]).any() for name in one))
        for name, values in one.items():
            self.assertTrue((values == convert[name]).all(), name)
        half = self.path("half")
        done = support.attempt("block", **inputs(half, **options, steps=6, batch_size=4, wall_time="0.001"))
        self.assertEqual(done.returncode, 85, done.stderr[-2000:])
        for name, values in support.read_feature_maps(self.train("block", work="half", **options)).items():
            self.assertTrue((values == one[name]).all(), name)

    def test_reaches_stage_2(self):
        plain, dropped = (support.read_log(self.train("lora", work=f"lora{share}", window_dropout=share) / "lora" /
                                           "lora.jsonl") for share in (0, 1))
        self.assertNotEqual(plain[0]["loss"], dropped[0]["loss"])
        none = self.train("lora", work="none", attention="none", steps=1) / "lora" / "lora.jsonl"
        self.assert_close(dropped[0]["loss"], support.read_log(none)[0]["loss"], NEAR, "a batch without its window")


class TransferLosses(QualityTest):
    def test_change_what_is_learnt_and_are_part_of_the_identity(self):
        plain = self.train("block", steps=2)
        for i, options in enumerate(({"far_xent_factor": 1}, {"layer_loss": "normalized"})):
            other = self.train("block", work=f"other{i}", steps=2, **options)
            first, second = (support.read_log(work / "transfer" / "block_00.jsonl")[0] for work in (plain, other))
            self.assertNotEqual(first["loss"], second["loss"])
            done = support.attempt("block", **inputs(plain, steps=2, batch_size=4, **options))
            self.assertEqual(done.returncode, 0, done.stderr[-2000:])
            self.assertIn("is of other settings", done.stderr)


class Divergence(QualityTest):
    def loss_by_hand(self, factor):
        """Of the first four sequences, before any step."""
        student, teacher = (log_softmax(logits[:4, :-1])
                            for logits in (self.logits(), self.teacher_logits()))
        labels = support.read_hdf5(TOKENS)["labels"][:4, 1:]
        sequence, position = np.nonzero(labels >= 0)
        own = -student[sequence, position, labels[sequence, position]].mean()
        diverged = (np.exp(teacher) * (teacher - student)).sum(axis=-1)[sequence, position].mean()
        return own + factor * diverged

    def teacher_logits(self):
        file = self.path("teacher.h5")
        support.evaluate(**inputs(self.path("teacher"), attention="teacher", save_logits=file))
        return support.read_hdf5(file)["logits"].astype(np.float64)

    def test_is_that_of_the_logits_on_any_number_of_ranks(self):
        expected = self.loss_by_hand(0.5)
        logs = []
        for ranks, layers in ((0, 4), (2, 2), (4, 1)):
            work = self.train("lora", ranks, work=f"ranks{ranks}", kl_factor=0.5, block_layers=layers, steps=3,
                              micro_batch=2)
            logs.append(support.read_log(work / "lora" / "lora.jsonl"))
        self.assert_close(logs[0][0]["loss"], expected, 1e-5, "loss")
        for log in logs[1:]:
            for line, first in zip(log, logs[0]):
                self.assert_close(line["loss"], first["loss"], NEAR, "loss")
                self.assert_close(line["grad_norm"], first["grad_norm"], 1e-5, "grad_norm")


def forget_losses(file):
    """As files were before their metadata had them."""
    metadata = support.safetensors_header(file)["__metadata__"]
    support.write_safetensors(file, support.read_safetensors(file),
                              {key: value for key, value in metadata.items() if not key.startswith("layer-loss.")})


class SoftmaxLayers(QualityTest):
    def best_losses(self):
        lines = support.evaluation_lines(MAPS / "block_00.jsonl")
        return min(lines, key=lambda line: line["eval_loss"])["eval_layer_losses"]

    def losses_in(self, file):
        """By the layers that the file names."""
        metadata = support.safetensors_header(file)["__metadata__"]
        return {int(key.split(".")[1]): float(value) for key, value in metadata.items()
                if key.startswith("layer-loss.")}

    def kept(self, maps, **options):
        """The layer that keeps softmax attention, where one is to."""
        work = self.train("lora", feature_maps=maps, keep_softmax_layers=1, steps=1, fresh=True, **options)
        metadata = support.safetensors_header(work / "lora" / "adapter_model.safetensors")["__metadata__"]
        return int(metadata["softmax-layers"])

    def test_losses_are_those_of_the_maps(self):
        """Not of a log that another training has begun anew beside them, unless they do not tell."""
        losses = self.best_losses()
        maps = self.path("maps")
        support.shutil.copytree(MAPS, maps)
        file = maps / "block_00.safetensors"
        self.assertEqual(self.losses_in(file), dict(enumerate(losses)))
        other = (int(np.argmax(losses)) + 1) % LAYERS
        line = {"step": 0, "loss": 1, "layer_losses": [float(layer == other) for layer in range(LAYERS)]}
        (maps / "block_00.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
        self.assertEqual(self.kept(maps), int(np.argmax(losses)))
        forget_losses(file)
        self.assertEqual(self.kept(maps), other)

    def test_losses_of_the_last_step_where_none_are_held_out(self):
        """In every block's file under the numbers of its layers; a file that does not tell goes by its own log."""
        maps = self.train("convert", feature_maps=None, block_layers=2, steps=2) / "transfer"
        files = sorted(maps.glob("*.safetensors"))
        losses = {}
        for i, file in enumerate(files):
            last = support.train_lines(file.with_suffix(".jsonl"))[-1]["layer_losses"]
            self.assertEqual(self.losses_in(file), dict(enumerate(last, 2 * i)))
            losses |= self.losses_in(file)
        self.assertEqual(sorted(losses), list(range(LAYERS)))
        for _ in range(3):
            self.assertEqual(self.kept(maps, block_layers=2), max(losses, key=losses.get))
            if files:
                forget_losses(files.pop())

    def test_all_of_them_are_the_teacher(self):
        teacher = support.evaluate(**inputs(self.path("teacher"), attention="teacher"))["loss"]
        self.assert_close(self.evaluate(softmax_layers=[0, 1, 2, 3])["loss"], teacher, NEAR, "loss")

    def test_those_of_the_highest_loss_are_kept_from_training_to_evaluation(self):
        worst = int(np.argmax(self.best_losses()))
        work = self.train("lora", keep_softmax_layers=1, steps=2)
        adapted = self.evaluate(adapter=work / "lora")["loss"]
        self.assertEqual(self.evaluate(adapter=work / "lora", softmax_layers=worst)["loss"], adapted)
        other = (worst + 1) % LAYERS
        self.assertNotEqual(self.evaluate(softmax_layers=worst)["loss"], self.evaluate(softmax_layers=other)["loss"])
        self.assert_fails(support.attempt("eval", **inputs(work, feature_maps=MAPS, adapter=work / "lora",
                                                           softmax_layers=other)), "was trained with softmax attention")
        generation = {key: value for key, value in inputs(work).items() if key not in ("tokens", "work")}
        self.assert_fails(support.attempt("generate", **generation, prompts=TOKENS, feature_maps=MAPS,
                                          adapter=work / "lora"), f"layers {worst} keep softmax attention")

    def test_logs_that_are_missing_are_named(self):
        maps = self.path("maps")
        support.shutil.copytree(MAPS, maps, ignore=support.shutil.ignore_patterns("*.jsonl"))
        forget_losses(maps / "block_00.safetensors")
        options = inputs(self.path("work"), feature_maps=maps, keep_softmax_layers=1)
        self.assert_fails(support.attempt("lora", **options), "--softmax-layers")


if __name__ == "__main__":
    unittest.main()
