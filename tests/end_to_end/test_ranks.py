#!/usr/bin/env python3
"""How layers are cut into blocks, and how many ranks and threads there are, must not change the results.

Blocks dealt to ranks, pipelines and the exact products of --dtype f32 give the same bits. Where ranks share the
sequences of a batch, sums over sequences change their order, and results agree within 1e-6.
"""

import tempfile
import unittest
from pathlib import Path

import numpy as np

import support

LAYERS = 14
NEAR = 1e-6


def setUpModule():
    """A miniature in f32 and in bf16, of a depth that blocks of 3, 4 and 5 do not divide."""
    global SHARED, F32, BF16
    SHARED = tempfile.TemporaryDirectory(prefix="lolcats-ranks-")
    sizes = {"layers": LAYERS, "sequences": 7, "length": 53, "vocab": 61, "heads": 4, "kv_heads": 2}
    F32 = support.make_miniature(Path(SHARED.name) / "f32", dtype="f32", shards=3, **sizes)
    BF16 = support.make_miniature(Path(SHARED.name) / "bf16", dtype="bf16", **sizes)


def tearDownModule():
    SHARED.cleanup()


def inputs(model):
    """Settings of a run. The arithmetic is fixed: by default it is the one that measures faster at the moment."""
    settings = {"model": model, "tokens": model / "tokens.h5", "window": 5, "batch_size": 4}
    return {**settings, "dtype": "f32"} if model == F32 else {**settings, "dtype": "bf16", "gemm": "f32"}


def losses(log):
    """What a log says, but for the speed."""
    return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in support.read_log(log)]


class RankTest(support.TestCase):
    def place(self, name):
        """A directory to run in, so that --work can be the same in all runs: it is stored in what they write."""
        directory = self.path(name)
        directory.mkdir()
        return directory

    def transfer(self, name, ranks=0, threads=1, hidden_ranks=0, model=None, **options):
        """Stage 0 and stage 1 in a directory of their own, which is returned."""
        cwd, settings = self.place(name), {**inputs(model or F32), **options}
        if settings["block_layers"] < LAYERS:
            shape = {key: settings[key] for key in settings if key not in ("steps", "dump_gradients")}
            support.run("hidden", hidden_ranks, threads, cwd, **shape)
        support.run("block", ranks, threads, cwd, **settings)
        return cwd

    def assert_same_files(self, directory, expected, pattern):
        names = sorted(path.name for path in expected.glob(pattern))
        self.assertEqual(sorted(path.name for path in directory.glob(pattern)), names)
        self.assertTrue(names)
        for name in names:
            self.assertEqual((directory / name).read_bytes(), (expected / name).read_bytes(), f"{directory} {name}")


class Blocks(RankTest):
    def check_first_losses(self, model, **options):
        """Blocks of several sizes, uneven last ones too, against all layers in one block."""
        runs = {}
        for size in (LAYERS, 1, 3, 4, 5):
            cwd = self.transfer(f"{options}{size}", model=model, block_layers=size, steps=1,
                                dump_gradients="gradients.h5", **options)
            arrays = support.read_hdf5(cwd / "gradients.h5")
            self.assertEqual(len(list((cwd / "work" / "transfer").glob("*.safetensors"))), -(-LAYERS // size))
            logged = [value for path in sorted((cwd / "work" / "transfer").glob("*.jsonl"))
                      for value in support.train_lines(path)[0]["layer_losses"]]
            self.assert_same_numbers(logged, arrays["layer_losses"], "log and file")
            self.assertEqual(len(logged), LAYERS)
            self.assertGreater(min(logged), 0)
            runs[size] = arrays
        for size, arrays in runs.items():
            self.assert_same_numbers(arrays["layer_losses"], runs[LAYERS]["layer_losses"], f"blocks of {size}")
            for name, gradient in runs[LAYERS].items():
                if name.startswith("model."):  # of the mean over the layers of a block
                    first = int(name.split(".")[2]) // size * size
                    share = min(size, LAYERS - first) / LAYERS
                    self.assert_close(arrays[name] * share, gradient, 1e-5, f"blocks of {size} {name}")

    def test_first_losses_f32(self):
        self.check_first_losses(F32)

    def test_first_losses_bf16(self):
        self.check_first_losses(BF16)

    @unittest.skipUnless(support.has_bf16_products(), "this processor has no bf16 products")
    def test_first_losses_bf16_products(self):
        self.check_first_losses(BF16, gemm="bf16")

    def test_uneven_last_block_holds_the_last_layers(self):
        cwd = self.transfer("uneven", block_layers=4, steps=1)
        names = support.read_safetensors(cwd / "work" / "transfer" / "block_03.safetensors")
        self.assertEqual({int(name.split(".")[2]) for name in names}, {12, 13})


class TransferRanks(RankTest):
    def test_blocks_dealt_to_ranks_give_the_same_bytes(self):
        for model in (F32, BF16):
            options = {"model": model, "block_layers": 1, "steps": 3, "shuffle": True, "validation": 2, "eval_every": 2}
            alone = self.transfer(f"{model.name} 0", **options)
            for ranks in (1, 2, 4, 14):
                cwd = self.transfer(f"{model.name} {ranks}", ranks, hidden_ranks=ranks, **options)
                self.assert_same_files(cwd / "work" / "transfer", alone / "work" / "transfer", "*.safetensors")
                for block in range(LAYERS):
                    log = f"work/transfer/block_{block:02}.jsonl"
                    self.assertEqual(losses(cwd / log), losses(alone / log))

    def test_ranks_that_share_a_block(self):
        options = {"block_layers": 7, "steps": 3, "xent_factor": 1, "validation": 2, "eval_every": 1}
        alone = self.transfer("alone", **options)
        for ranks in (4, 6, 14):  # of 14 ranks some have no sequence of a batch of 4
            cwd = self.transfer(str(ranks), ranks, **options)
            for block in (0, 1):
                log = f"work/transfer/block_{block:02}.jsonl"
                mine, expected = losses(cwd / log), losses(alone / log)
                self.assertEqual([line.keys() for line in mine], [line.keys() for line in expected])
                for line, other in zip(mine, expected):
                    for key in line:
                        self.assert_close(line[key], other[key], NEAR, f"{ranks} ranks {key}")
            self.assert_all_close(support.read_feature_maps(cwd / "work"), support.read_feature_maps(alone / "work"),
                                  NEAR, f"{ranks} ranks")

    def test_ranks_that_do_not_divide_the_blocks(self):
        options = {"block_layers": 3, "steps": 2}  # 5 blocks
        alone = self.transfer("alone", **options)
        for ranks in (2, 3, 5):
            cwd = self.transfer(str(ranks), ranks, **options)
            self.assert_same_files(cwd / "work" / "transfer", alone / "work" / "transfer", "*.safetensors")

    def test_gradients_of_all_ranks_reach_the_file(self):
        options = {"block_layers": 3, "steps": 1, "dump_gradients": "gradients.h5"}
        alone = support.read_hdf5(self.transfer("alone", **options) / "gradients.h5")
        for ranks in (3, 10):
            arrays = support.read_hdf5(self.transfer(str(ranks), ranks, **options) / "gradients.h5")
            self.assert_all_close(arrays, alone, NEAR, f"{ranks} ranks")


class HiddenRanks(RankTest):
    def test_pipeline_and_data_ranks(self):
        meshes = {F32: ((1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (14, 2), (14, 14)), BF16: ((4, 2), (14, 14))}
        for model in (F32, BF16):
            settings = {**inputs(model), "block_layers": 1}
            alone = self.place(f"{model.name} alone")
            support.run("hidden", 0, 1, alone, **settings)
            for ranks, pipeline in meshes[model]:
                cwd = self.place(f"{model.name} {ranks} {pipeline}")
                support.run("hidden", ranks, 1, cwd, pipeline_ranks=pipeline, **settings)
                for block in range(1, LAYERS):
                    self.assert_same_numbers(support.read_hidden(cwd / "work", block),
                                             support.read_hidden(alone / "work", block), f"{ranks} {pipeline} {block}")
                support.shutil.rmtree(cwd)

    def test_micro_batches(self):
        settings = {**inputs(F32), "block_layers": 5}
        for size in (1, 2, 7):
            support.run("hidden", 0, 1, self.place(str(size)), micro_batch=size, **settings)
            for block in (1, 2):
                self.assert_same_numbers(support.read_hidden(self.path(f"{size}/work"), block),
                                         support.read_hidden(self.path("1/work"), block), f"{size} {block}")


class ModelRanks(RankTest):
    """Stage 2 and the evaluation on pipeline x data ranks."""

    MESHES = ((1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4))

    def check_lora(self, tolerance, **options):
        runs = {}
        for ranks, pipeline in ((0, 0), *self.MESHES):
            cwd = self.place(f"{ranks} {pipeline}")
            support.run("lora", ranks, 1, cwd, block_layers=3, steps=3, train_feature_maps=True, validation=2,
                        eval_every=2, lr=1e-3, pipeline_ranks=pipeline, **inputs(F32), **options)
            tensors = support.read_safetensors(cwd / "work/lora/adapter_model.safetensors")
            tensors.update(support.read_safetensors(cwd / "work/lora/feature_maps.safetensors"))
            runs[ranks, pipeline] = losses(cwd / "work/lora/lora.jsonl"), tensors
        alone, expected = runs[0, 0]
        for mesh, (lines, tensors) in runs.items():
            self.assertEqual([line.keys() for line in lines], [line.keys() for line in alone])
            for line, other in zip(lines, alone):
                for key in line:
                    self.assert_close(line[key], other[key], tolerance, f"{mesh} {key}")
            self.assert_all_close(tensors, expected, 100 * tolerance, str(mesh))
            if mesh[0] == mesh[1]:  # a pipeline alone changes no sum but that of the gradient's norm
                for line, other in zip(lines[:2], alone):
                    self.assertEqual(line.get("loss"), other.get("loss"), str(mesh))
        return alone

    def test_lora(self):
        self.check_lora(NEAR)

    def test_lora_in_micro_batches_of_several_sequences(self):
        self.check_lora(NEAR, micro_batch=2)

    def test_lora_with_dropout(self):
        dropped = self.check_lora(NEAR, lora_dropout=0.4)
        for mesh in ((0, 0), *self.MESHES):
            support.shutil.rmtree(self.path(f"{mesh[0]} {mesh[1]}"))
        whole = self.check_lora(NEAR)
        self.assertNotEqual(dropped[-2]["loss"], whole[-2]["loss"])

    def test_evaluation(self):
        support.run("lora", 0, 1, self.directory, steps=1, train_feature_maps=True, **inputs(F32))
        lora = self.path("work/lora")
        adapted = {"feature_maps": lora / "feature_maps.safetensors", "adapter": lora}
        for options in ({"attention": "teacher"}, adapted):
            runs = {}
            for ranks, pipeline in ((0, 0), *self.MESHES, (14, 7)):
                file = self.path(f"logits{ranks}_{pipeline}.h5")
                result = support.evaluate(ranks=ranks, threads=1, **inputs(F32), block_layers=2, save_logits=file,
                                          pipeline_ranks=pipeline, **options)
                runs[ranks, pipeline] = result, support.read_hdf5(file)["logits"]
            alone, logits = runs[0, 0]
            for mesh, (result, values) in runs.items():
                self.assert_same_numbers(values, logits, f"logits {mesh}")
                self.assert_close(result["loss"], alone["loss"], NEAR, str(mesh))
                for key in ("tokens", "spans", "exact_match"):
                    self.assertEqual(result[key], alone[key], f"{mesh} {key}")


class Weights(RankTest):
    """One replica of a stage that reads the weights for all of them, against replicas that each read for themselves."""

    def check(self, name, results, **options):
        for weights in ("read", "broadcast"):
            cwd = self.place(f"{name} {weights}")
            if name == "block":
                support.run("hidden", 0, 1, cwd, **inputs(BF16), block_layers=options["block_layers"])
            support.run(name, 4, 1, cwd, weights=weights, **inputs(BF16), **options)
        self.assert_same_files(self.path(f"{name} broadcast/work/{results}"), self.path(f"{name} read/work/{results}"),
                               "*.safetensors")

    def test_no_byte_changes(self):
        pipeline = {"block_layers": 4, "pipeline_ranks": 2}
        self.check("block", "transfer", block_layers=7, steps=2)
        self.check("convert", "transfer", steps=2, **pipeline)
        self.check("lora", "lora", steps=2, lora_rank=4, train_feature_maps=True, **pipeline)

    def test_no_number_of_stage_0_and_evaluation_changes(self):
        pipeline = {"block_layers": 4, "pipeline_ranks": 2, **inputs(BF16)}
        for weights in ("read", "broadcast"):
            support.run("hidden", 4, 1, self.place(weights), weights=weights, **pipeline)
            support.run("eval", 4, 1, self.path(weights), weights=weights, attention="teacher",
                        save_logits="logits.h5", **pipeline)
        read, broadcast = self.path("read"), self.path("broadcast")
        for block in range(1, 4):
            self.assert_same_numbers(support.read_hidden(broadcast / "work", block),
                                     support.read_hidden(read / "work", block), f"block {block}")
        self.assert_same_numbers(support.read_hdf5(broadcast / "logits.h5")["logits"],
                                 support.read_hdf5(read / "logits.h5")["logits"], "logits")


class Settings(RankTest):
    """Ranks that were given other settings than the first one."""

    def attempt(self, *ranks):
        """Each rank runs in a directory of its own, `ranks` has its options."""
        line = []
        for i, options in enumerate(ranks):
            settings = {**inputs(F32), "work": self.path("work"), "steps": 1, **options}
            launcher, count, one, *own = support.command_line("lora", settings, 1)
            self.path(str(i)).mkdir(exist_ok=True)
            line += [":" if line else launcher, count, one, "--wdir", str(self.path(str(i))), *own]
        return support.subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)

    def refused(self, words, *ranks):
        done = self.attempt(*ranks)
        self.assert_fails(done, "lolcats_lora: error: ", words, "give all ranks the same options")
        self.assertEqual(done.returncode, 1, done.stderr[-2000:])
        self.assertFalse(self.path("work").exists())

    def test_they_are_told_apart(self):
        self.refused("lr is 0.0001 on rank 1, but 0.001 on rank 0", {"lr": 1e-3}, {"lr": 1e-4})
        self.refused("window is 6 on rank 2, but 5 on rank 0", {}, {}, {"seed": 2, "window": 6})
        self.refused("help is true on rank 1, but false on rank 0", {}, {"help": True})

    def test_configuration_file_of_a_node(self):
        for i, text in enumerate(("lora-rank = 4\n", "lora-rank = 2\n")):
            self.place(str(i))
            self.path(f"{i}/lolcats.toml").write_text(text, encoding="utf-8")
        self.refused("lora-rank is 2 on rank 1, but 4 on rank 0", {}, {})

    def test_memory_is_a_ranks_own(self):
        maps = {"train_feature_maps": True}
        done = self.attempt({"activation_memory": 1e3, **maps}, {"activation_memory": 1e9, **maps})
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])


class Threads(RankTest):
    def test_f32_is_the_same_on_one_thread_and_two(self):
        for threads in (1, 2):
            cwd = self.transfer(f"{threads}", threads=threads, block_layers=5, steps=3, micro_batch=2, xent_factor=1)
            settings = {**inputs(F32), "micro_batch": 2}
            support.run("lora", 0, threads, cwd, steps=3, lora_dropout=0.1, **settings)
            support.run("eval", 0, threads, cwd, feature_maps="work/transfer", adapter="work/lora",
                        save_logits="logits.h5", **settings)
        one, two = self.path("1"), self.path("2")
        self.assert_same_files(two / "work" / "transfer", one / "work" / "transfer", "*.safetensors")
        self.assert_same_files(two / "work" / "lora", one / "work" / "lora", "*.safetensors")
        self.assertEqual(losses(two / "work/lora/lora.jsonl"), losses(one / "work/lora/lora.jsonl"))
        self.assert_same_numbers(support.read_hdf5(two / "logits.h5")["logits"],
                                 support.read_hdf5(one / "logits.h5")["logits"], "logits")

    def test_data_ranks_keep_the_order_of_sequences(self):
        """What the spread of losses over ranks may be: nothing but the last bits of sums in double."""
        runs = []
        for ranks in (1, 2, 4):
            cwd = self.place(f"{ranks} ranks")
            support.run("lora", ranks, 1, cwd, steps=1, train_feature_maps=True, pipeline_ranks=1,
                        dump_gradients="gradients.h5", **inputs(F32))
            runs.append(support.read_hdf5(cwd / "gradients.h5"))
        for arrays in runs:
            self.assert_all_close(arrays, runs[0], 1e-12, "gradients summed in double")
            self.assertTrue(np.isfinite(arrays["loss"]))


if __name__ == "__main__":
    unittest.main()
