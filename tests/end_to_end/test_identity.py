#!/usr/bin/env python3
"""Work of another model or other tokens is told from one's own: it is neither gone on with nor replaced by mistake."""

import json
import re
import shutil
import unittest

import h5py
import numpy as np

import support
import test_restart


def setUpModule():
    test_restart.setUpModule()


def tearDownModule():
    test_restart.tearDownModule()


class Identity(test_restart.Restart):
    def copy_of_model(self, edit=lambda arrays: None):
        copy = self.path("copy")
        shutil.copytree(self.model, copy, ignore=shutil.ignore_patterns("*.h5"))
        arrays = {name: array.copy() for name, array in support.read_safetensors(copy / "model.safetensors").items()}
        edit(arrays)
        support.write_safetensors(copy / "model.safetensors", arrays, {"format": "pt"})
        return copy

    def mpi_locks(self):
        """What Open MPI leaves beside files that ranks share when they are ended; the next run clears it away."""
        return [path for path in self.work.rglob("*") if re.fullmatch(r".+\.h5.*-\d+-\d+\.lock", path.name)]

    def files(self):
        return {path: path.read_bytes() for path in self.work.rglob("*")
                if path.is_file() and path.parent.name != "attempts" and path not in self.mpi_locks()}

    def refuses_all(self, words, **changes):
        """Stages 0, 1 and 2 leave finished work of something else as it is."""
        before = self.files()
        for program, file in (("hidden", "hidden/block_01.h5"), ("block", "transfer/block_00.safetensors"),
                              ("lora", "lora/adapter_model.safetensors")):
            for ranks in (0, 4):
                with self.subTest(program=program, ranks=ranks):
                    self.fails(program, words, "--work", "--fresh", *([self.work / file] if ranks == 0 else []),
                               ranks=ranks, **changes)
                    self.assertEqual(self.files(), before)


class Model(Identity):
    def finish(self):
        for program in test_restart.STAGES:
            self.succeeds(program)

    def test_fine_tuned_copy(self):
        """All values of one tensor differ by the least there is; names, types and shapes are the same."""
        def nudge(arrays):
            values = arrays["model.layers.3.self_attn.q_proj.weight"]
            values[:] = np.nextafter(values, np.float32(np.inf))

        self.finish()
        tuned = self.copy_of_model(nudge)
        self.refuses_all("its model is another one", model=tuned)
        shutil.rmtree(self.work / "transfer")  # a store of the first model and no more
        self.fails("block", "hidden/block_01.h5", "its model is another one", "lolcats_hidden --fresh", model=tuned)
        self.succeeds("hidden", model=tuned, fresh=True)
        self.succeeds("block", model=tuned, fresh=True)

    def test_unfinished_training(self):
        self.succeeds("hidden")
        self.stop_in("block", "transfer", steps=1000)
        tuned = self.copy_of_model(lambda arrays: arrays["model.norm.weight"].__imul__(np.float32(1.01)))
        self.fails("block", "this checkpoint is of another training: its model is another one", "--fresh", model=tuned,
                   steps=1000)

    def test_copy_in_shards_is_the_same_model(self):
        for program in ("hidden", "block"):
            self.succeeds(program)
        before = self.results()
        copy = self.copy_of_model()
        arrays = support.read_safetensors(copy / "model.safetensors")
        (copy / "model.safetensors").unlink()
        names = sorted(arrays)
        shards = {"a.safetensors": names[:7], "b.safetensors": names[7:]}
        for shard, mine in shards.items():
            support.write_safetensors(copy / shard, {name: arrays[name] for name in mine})
        index = {"weight_map": {name: shard for shard, mine in shards.items() for name in mine}}
        (copy / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        self.succeeds("hidden", 2, model=copy)
        done = self.attempt("block", 2, model=copy)
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        self.assertEqual(done.stderr.count("is trained already"), 3)
        self.assert_same_results(self.results(), before)


    def test_asking_for_gradients_replaces_nothing(self):
        self.finish()
        tuned = self.copy_of_model(lambda arrays: arrays["model.norm.weight"].__imul__(np.float32(1.01)))
        gradients = self.path("gradients.h5")
        for program in ("block", "lora"):
            before = self.files()
            for ranks in (0, 4):
                with self.subTest(program=program, ranks=ranks):
                    self.fails(program, "its model is another one", "--work", "--fresh", ranks=ranks, model=tuned,
                               dump_gradients=gradients)
                    self.assertEqual(self.files(), before)
            self.assertFalse(gradients.exists())
            self.succeeds(program, dump_gradients=gradients)
            gradients.unlink()

    def test_maps_that_nobody_named_are_of_the_model(self):
        for program in ("hidden", "block"):
            self.succeeds(program)
        tuned = self.copy_of_model(lambda arrays: arrays["model.norm.weight"].__imul__(np.float32(1.01)))
        transfer = self.work / "transfer"
        options = {"model": tuned, "train_feature_maps": False}
        for ranks in (0, 4):
            self.fails("lora", transfer, "its model is another one", "--feature-maps", ranks=ranks, **options)
            self.assertFalse((self.work / "lora").exists())
        self.succeeds("lora", feature_maps=transfer, **options)


class OwnResults(Identity):
    """What a run replaces or removes is not what it starts from."""

    def refuses(self, program, option, path, ranks=0, **changes):
        before = self.files()
        with self.subTest(program=program, path=path, ranks=ranks):
            self.fails(program, f"--{option.replace('_', '-')} {path}: ", "give another --work", ranks=ranks,
                       **{**changes, option: path})
            self.assertEqual(self.files(), before)

    def test_stage_1(self):
        for program in ("hidden", "block"):
            self.succeeds(program)
        transfer = self.work / "transfer"
        self.path("link").symlink_to(transfer)
        self.path("links").mkdir()
        for file in transfer.glob("*.safetensors"):
            (self.path("links") / file.name).symlink_to(file)
        shutil.copy(transfer / "block_00.safetensors", self.path("elsewhere.safetensors"))
        (transfer / "away.safetensors").symlink_to(self.path("elsewhere.safetensors"))
        for path in (transfer, transfer / "block_00.safetensors", self.work / "hidden" / ".." / "transfer",
                     self.path("link"), self.path("links"), transfer / "away.safetensors"):
            self.refuses("block", "init_feature_maps", path)
        (transfer / "away.safetensors").unlink()
        for program, ranks in (("convert", 0), ("block", 4)):
            self.refuses(program, "init_feature_maps", transfer, ranks)
        self.succeeds("convert", init_feature_maps=transfer, work=self.path("another"))

    def test_stage_2(self):
        self.succeeds("lora")
        lora = self.work / "lora"
        maps = lora / "feature_maps.safetensors"
        for ranks in (0, 4):
            self.refuses("lora", "feature_maps", maps, ranks, train_feature_maps=False)
            self.refuses("lora", "init_adapter", lora, ranks)
        self.refuses("lora", "init_feature_maps", maps)
        self.refuses("lora", "feature_maps", lora)
        self.succeeds("lora", feature_maps=maps, init_adapter=lora, work=self.path("another"))


class HiddenStates(Identity):
    """Stage 0 replaces no store but with --fresh."""

    def test_other_runs(self):
        self.succeeds("hidden")
        tokens = support.read_hdf5(self.tokens)["tokens"]
        tokens[0, 0] ^= 1
        other = support.write_tokens(self.path("other.h5"), tokens)
        before = self.files()
        for words, changes in (("token identity", {"tokens": other}), ("number of sequences", {"sequences": 7}),
                               ("element type", {"hidden_dtype": "bf16"}), ("layer", {"block_layers": 3})):
            for ranks in (0, 2):
                with self.subTest(words=words, ranks=ranks):
                    self.fails("hidden", self.work / "hidden", words, "--work", "--fresh", ranks=ranks, **changes)
                    self.assertEqual(self.files(), before)
        self.succeeds("hidden", tokens=other, fresh=True)
        self.assertNotEqual(self.files(), before)

    def test_unfinished_store(self):
        """Whether all of its sequences are there makes no difference."""
        self.succeeds("hidden")
        with h5py.File(self.work / "hidden" / "block_02.h5", "r+") as file:
            file["done"][3:] = 0
        self.fails("hidden", "number of sequences", "--fresh", sequences=7)
        self.succeeds("hidden")

    def test_damaged_store(self):
        self.succeeds("hidden")
        expected = self.results()
        store = self.work / "hidden" / "block_01.h5"
        store.write_bytes(store.read_bytes()[:5000])
        before = self.files()
        for ranks in (0, 2):
            self.fails("hidden", store, "damaged; delete it", ranks=ranks)
            self.assertEqual(self.files(), before)
        store.unlink()
        # As a run that was ended leaves it, whichever way MPI chose here.
        leftovers = [self.work / "hidden" / "block_02.h5-764608513-16754.lock", self.work / "arithmetic.txt.tmp.a1.16754"]
        for leftover in leftovers:
            leftover.write_bytes(bytes(8))
        self.succeeds("hidden")
        self.assertEqual([leftover for leftover in leftovers if leftover.exists()], [])
        self.assert_same_results(self.results(), expected)
        self.assertEqual(self.mpi_locks(), [])


class Settings(Identity):
    """A setting that changes a training's numbers must be part of what tells it from others: else a run that is started
    again goes on from a checkpoint of another one. Whoever adds a setting says here if it is none of those."""

    # Of no matter to any training, or told by what it names or leads to: the model, the tokens, the layers chosen.
    ANY = {"adapter", "attention-mass", "branch", "communication", "keep-softmax-layers", "load-state", "log-every",
           "max-new-tokens", "micro-batch", "model", "pipeline-ranks", "plan-bandwidth", "plan-check", "plan-flops",
           "plan-length", "plan-link", "plan-measured", "plan-memory", "plan-ranks", "plan-streaming", "plan-tokens",
           "prompts", "recipe", "save-state", "sinks", "stop-token", "temperature", "tokens", "top-k", "top-p"}
    STAGE = {
        "transfer/block_00": {"feature-maps", "init-adapter", "kl-factor", "lora-alpha", "lora-dropout", "lora-modules",
                              "lora-rank", "softmax-layers", "train-feature-maps"},
        "lora/adapter_model": {"block-layers", "far-xent-factor", "hidden-dtype", "init-feature-maps", "layer-loss",
                               "mse-factor", "xent-factor"}}

    def test_every_one_is_judged(self):
        for program in test_restart.STAGES:
            self.succeeds(program)
        for name, free in self.STAGE.items():
            metadata = support.safetensors_header(self.work / f"{name}.safetensors")["__metadata__"]
            told, all_settings = json.loads(metadata["settings"]), json.loads(metadata["run_deck"])["options"]
            with self.subTest(result=name):
                self.assertEqual(all_settings.keys() - told.keys(), self.ANY | free)


if __name__ == "__main__":
    unittest.main()
