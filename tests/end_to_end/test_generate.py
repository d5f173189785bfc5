#!/usr/bin/env python3
"""Generation: the recurrent form against the parallel one, batches, sampling, sessions that go on, bad input."""

import json
import shutil
import unittest

import h5py
import numpy as np

import support

KINDS = ("terrace", "sliding", "none", "teacher")
WINDOW = 16


def write_prompts(path, prompts):
    path.write_text("".join(json.dumps({"tokens": [int(t) for t in p]}) + "\n" for p in prompts), encoding="utf-8")
    return path


def generate(**options):
    """The lines that lolcats_generate prints, as objects."""
    lines = [json.loads(line) for line in support.run("generate", **options).splitlines()]
    assert [line["prompt"] for line in lines] == list(range(len(lines))), lines
    return lines


def texts(**options):
    return [line["tokens"] for line in generate(**options)]


class GenerateTest(support.TestCase):
    """Prompts of several lengths: the beginnings of sequences of the tiny teacher's language."""

    LENGTHS = (1, 40, 16, 33, 90, 17, 64)

    def setUp(self):
        super().setUp()
        corpus = support.make_corpus(self.path("corpus.h5"), sequences=len(self.LENGTHS), length=128, seed=5)
        with h5py.File(corpus, "r") as file:
            sequences = file["tokens"][()]
        self.prompts = [s[:n] for s, n in zip(sequences, self.LENGTHS)]
        self.file = write_prompts(self.path("prompts.jsonl"), self.prompts)
        self.options = {"model": support.TINY, "prompts": self.file, "window": WINDOW, "stop_token": "none"}


class Recurrence(GenerateTest):
    def evaluated(self, sequences, **options):
        """Logits [n, T, V] of sequences of different lengths by lolcats_eval; what follows a sequence is no matter."""
        longest = max(map(len, sequences))
        tokens = np.zeros((len(sequences), longest), np.int32)
        for row, sequence in zip(tokens, sequences):
            row[:len(sequence)] = sequence
        file = self.path("logits.h5")
        support.evaluate(model=support.TINY, tokens=support.write_tokens(self.path("all.h5"), tokens), window=WINDOW,
                         save_logits=file, **options)
        return support.read_hdf5(file)["logits"]

    def test_every_token_is_the_most_likely_of_the_parallel_form(self):
        for kind in KINDS:
            with self.subTest(attention=kind):
                written = texts(**self.options, attention=kind, dtype="f32", max_new_tokens=60)
                whole = [[*prompt, *text] for prompt, text in zip(self.prompts, written)]
                logits = self.evaluated(whole, attention=kind, dtype="f32")
                for row, prompt, text in zip(logits, self.prompts, written):
                    expected = row[len(prompt) - 1:len(prompt) - 1 + len(text)].argmax(axis=1)
                    self.assertEqual(text, expected.tolist())

    def test_adapter_and_maps(self):
        tokens = support.make_corpus(self.path("train.h5"), sequences=16, length=128, seed=1)
        work = self.path("work")
        support.run("lora", model=support.TINY, tokens=tokens, window=WINDOW, work=work, steps=3, lr=0.03,
                    train_feature_maps=True)
        adapted = {"feature_maps": work / "lora" / "feature_maps.safetensors", "adapter": work / "lora",
                   "dtype": "f32"}
        written = texts(**self.options, **adapted, max_new_tokens=30)
        self.assertNotEqual(written, texts(**self.options, dtype="f32", max_new_tokens=30))
        logits = self.evaluated([[*p, *t] for p, t in zip(self.prompts, written)], **adapted)
        for row, prompt, text in zip(logits, self.prompts, written):
            self.assertEqual(text, row[len(prompt) - 1:len(prompt) - 1 + len(text)].argmax(axis=1).tolist())

    def test_long_prompts_come_in_pieces(self):
        """Longer than what is read at once."""
        prompt = np.concatenate(self.prompts * 5)
        self.assertGreater(len(prompt), 1024)
        file = write_prompts(self.path("long.jsonl"), [prompt])
        for kind in KINDS:
            options = {**self.options, "prompts": file, "attention": kind, "dtype": "f32", "max_new_tokens": 5}
            [text] = texts(**options)
            logits = self.evaluated([[*prompt, *text]], attention=kind, dtype="f32")
            self.assertEqual(text, logits[0, len(prompt) - 1:-1].argmax(axis=1).tolist(), kind)


class Batches(GenerateTest):
    def test_a_text_does_not_depend_on_its_batch(self):
        for options in ({"dtype": "f32"}, {"dtype": "bf16"}, {"gemm": "f32"}, {"attention": "teacher"},
                        {"temperature": 1, "top_p": 0.9, "seed": 3}):
            with self.subTest(**options):
                options = {**self.options, **options, "max_new_tokens": 20}
                together = generate(**options)
                for size in (1, 3):
                    self.assertEqual(generate(**options, batch_size=size), together)
                alone = write_prompts(self.path("alone.jsonl"), self.prompts[:1])
                self.assertEqual(texts(**{**options, "prompts": alone}), [together[0]["tokens"]])

    def test_texts_end_one_by_one(self):
        """Some stop early, and the next prompts take their places."""
        options = {**self.options, "temperature": 1, "max_new_tokens": 40}
        whole = texts(**options)
        stops = sorted({whole[1][7], whole[4][0], whole[5][20]})
        lines = generate(**{**options, "stop_token": stops, "batch_size": 2})
        for line, text, prompt in zip(lines, whole, self.prompts):
            ends = [i for i, token in enumerate(text) if token in stops]
            expected = text[:ends[0] + 1] if ends else text
            self.assertEqual(line["tokens"], expected)
            self.assertEqual(line["finish"], "stop" if ends else "length")
            self.assertEqual(line["position"], len(prompt) + len(expected))
        self.assertEqual({line["finish"] for line in lines[1:2]}, {"stop"})

    def test_a_token_store_holds_prompts_too(self):
        rows = np.stack([prompt[:16] for prompt in self.prompts if len(prompt) >= 16])
        store = support.write_tokens(self.path("store.h5"), rows)
        lines = write_prompts(self.path("rows.jsonl"), rows)
        self.assertEqual(texts(**{**self.options, "prompts": store}), texts(**{**self.options, "prompts": lines}))


class Sampling(GenerateTest):
    def sample(self, **options):
        return texts(**{**self.options, "max_new_tokens": 30, "temperature": 1, **options})

    def test_the_seed_decides(self):
        self.assertEqual(self.sample(seed=1), self.sample(seed=1))
        self.assertNotEqual(self.sample(seed=1), self.sample(seed=2))

    def test_one_likely_token_is_the_most_likely(self):
        greedy = self.sample(temperature=0)
        self.assertEqual(self.sample(top_k=1), greedy)
        self.assertEqual(self.sample(top_p=1e-9), greedy)
        self.assertEqual(self.sample(temperature=1e-9), greedy)

    def test_equal_prompts_differ_by_their_numbers(self):
        file = write_prompts(self.path("equal.jsonl"), [self.prompts[1]] * 3)
        first, second, third = self.sample(prompts=file)
        self.assertTrue(first != second != third != first)


class Stopping(GenerateTest):
    def test_the_model_names_its_stop_tokens(self):
        """Of generation_config.json before those of config.json."""
        options = {**self.options, "max_new_tokens": 30, "temperature": 1, "stop_token": "none"}
        text = texts(**options)[1]
        model = shutil.copytree(support.TINY, self.path("model"))
        del options["stop_token"]
        for ids in (text[3], [text[5], 255]):
            (model / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}), encoding="utf-8")
            ids = ids if isinstance(ids, list) else [ids]
            end = min(i for i, token in enumerate(text) if token in ids)
            self.assertEqual(texts(**{**options, "model": model})[1], text[:end + 1])


class Recall(GenerateTest):
    FACTS = 16

    def test_a_linearised_model_completes_facts(self):
        """They stand more than four windows back; the swap alone completes none."""
        corpus = support.make_corpus(self.path("facts.h5"), sequences=self.FACTS, length=256, seed=2, labels="answers")
        with h5py.File(corpus, "r") as file:
            tokens, labels = file["tokens"][()], file["labels"][()]
        last = [np.flatnonzero(row >= 0)[-2] for row in labels]
        answers = [row[n:n + 2].tolist() for row, n in zip(tokens, last)]
        prompts = write_prompts(self.path("questions.jsonl"), [row[:n] for row, n in zip(tokens, last)])
        options = {**self.options, "prompts": prompts, "max_new_tokens": 2}

        def completed(**more):
            return sum(text == answer for text, answer in zip(texts(**options, **more), answers))

        self.assertEqual(completed(attention="teacher"), self.FACTS)
        self.assertEqual(completed(), 0)
        work = self.path("work")
        train = support.make_corpus(self.path("train.h5"), sequences=1200, length=256, seed=1)
        support.run("block", model=support.TINY, tokens=train, window=WINDOW, feature_dim=32, work=work, steps=150,
                    lr=0.03, schedule="constant")
        self.assertGreaterEqual(completed(feature_maps=work / "transfer"), self.FACTS // 4)


class Sessions(GenerateTest):
    def test_go_on_as_if_never_interrupted(self):
        state = self.path("state.h5")
        for kind in ("terrace", "sliding", "none"):
            for more in ({"dtype": "f32"}, {"gemm": "f32", "temperature": 0.8, "seed": 4}):
                with self.subTest(attention=kind, **more):
                    options = {**self.options, **more, "attention": kind}
                    whole = texts(**options, max_new_tokens=40)
                    first = texts(**options, max_new_tokens=23, save_state=state, batch_size=3)
                    del options["prompts"]
                    rest = texts(**options, max_new_tokens=17, load_state=state)
                    self.assertEqual([a + b for a, b in zip(first, rest)], whole)

    def test_go_on_with_further_prompts(self):
        """As if what was said were one prompt. Files are the same however texts were batched."""
        states = [self.path("1.h5"), self.path("2.h5")]
        options = {**self.options, "dtype": "f32"}
        first = texts(**options, max_new_tokens=9, save_state=states[0])
        texts(**options, max_new_tokens=9, save_state=states[1], batch_size=1)
        for name, array in support.read_hdf5(states[0]).items():
            self.assert_same_numbers(support.read_hdf5(states[1])[name], array, name)
        further = [prompt[::-1] for prompt in self.prompts[1:]] + [[]]
        whole = [[*a, *b, *c] for a, b, c in zip(self.prompts, first, further)]
        expected = texts(**{**options, "prompts": write_prompts(self.path("whole.jsonl"), whole)}, max_new_tokens=12)
        file = write_prompts(self.path("further.jsonl"), further)
        lines = generate(**{**options, "prompts": file}, load_state=states[0], max_new_tokens=12)
        self.assertEqual([line["tokens"] for line in lines], expected)
        self.assertEqual([line["position"] for line in lines], [len(text) + 12 for text in whole])


class BadInput(GenerateTest):
    def fails(self, *words, ranks=0, **options):
        done = support.attempt("generate", ranks=ranks, **{**self.options, "max_new_tokens": 3, **options})
        self.assertEqual(done.stdout, "")
        self.assert_fails(done, *words)

    def prompts_file(self, text):
        path = self.path("bad.jsonl")
        path.write_text(text, encoding="utf-8")
        return path

    def test_prompts(self):
        good = '{"tokens": [1, 5]}\n'
        self.fails("--prompts", "missing", prompts=None)
        self.fails("nowhere.jsonl", "cannot be read", prompts=self.path("nowhere.jsonl"))
        self.fails("bad.jsonl", "no prompt", prompts=self.prompts_file("\n"))
        deep = '{"tokens": ' + "[" * 100_000 + "]" * 100_000 + "}"
        for line in ("hello", "[1, 2]", '{"text": "x"}', '{"tokens": 3}', deep):
            self.fails("bad.jsonl, line 2", '{"tokens": [ids]}', prompts=self.prompts_file(good + line + "\n"))
        for token in ("256", "-1", "1.5", '"x"', "4294967297"):
            self.fails("bad.jsonl, line 2", token.strip('"'), "vocabulary of 256",
                       prompts=self.prompts_file(good + f'{{"tokens": [3, {token}]}}\n'))
        self.fails("bad.jsonl, line 2", "empty", prompts=self.prompts_file(good + '{"tokens": []}\n'))

    def test_stop_tokens_of_the_model(self):
        model = shutil.copytree(support.TINY, self.path("model"))
        for ids in (2**32 + 5, [3, 2**63 + 5], 2**64 - 1, "</s>", [[3]]):
            (model / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}), encoding="utf-8")
            self.fails("generation_config.json", "eos_token_id", "--stop-token", model=model, stop_token=None)

    def test_options(self):
        self.fails("--stop-token", "'x'", stop_token="3,x")
        self.fails("--stop-token", "'256'", stop_token="256")
        self.fails("--top-p", top_p=0)
        self.fails("--temperature", temperature=-1)
        self.fails("--batch-size 257", "256", batch_size=257)
        self.fails("--attention teacher", "--feature-maps", attention="teacher", feature_maps=support.GOLDEN)
        self.fails("--attention teacher", "--save-state", attention="teacher", save_state=self.path("s.h5"))
        self.fails("one rank", ranks=2)

    def test_states_of_others(self):
        state = self.path("state.h5")
        texts(**self.options, max_new_tokens=3, save_state=state)
        self.fails("window", '"16"', '"8"', load_state=state, window=8)
        self.fails("attention", load_state=state, attention="sliding")
        self.fails("dtype", load_state=state, dtype="f32")
        self.fails("feature-map-init", load_state=state, seed=1)
        self.fails("model", "another one", load_state=state, prompts=None,
                   model=support.make_miniature(self.path("other"), layers=4, hidden=128, heads=4, kv_heads=2))
        self.fails("prompts.jsonl: holds 2 prompts", "7 texts", load_state=state,
                   prompts=write_prompts(self.path("prompts.jsonl"), self.prompts[:2]))
        self.fails("no such file", load_state=self.path("nowhere.h5"))

    def test_damaged_states(self):
        state = self.path("state.h5")
        texts(**self.options, max_new_tokens=3, save_state=state)
        whole = state.read_bytes()
        state.write_bytes(whole[:len(whole) // 2])
        self.fails("state.h5", load_state=state)
        state.write_bytes(whole)
        with h5py.File(state, "a") as file:
            file["layers.2.sums"][3, 1, 4, 5] = np.nan
        self.fails("state.h5", "layers.2.sums", "not finite", load_state=state, batch_size=8)
        state.write_bytes(whole)
        with h5py.File(state, "a") as file:
            del file["layers.1.keys"]
        self.fails("state.h5", "layers.1.keys", load_state=state)
        self.fails("prompts.jsonl", "HDF5", load_state=self.file)

    def test_a_run_that_fails_leaves_no_state(self):
        state = self.path("states") / "state.h5"
        self.fails("state.h5", save_state=state)  # there is no such directory
        state.parent.mkdir()
        model = shutil.copytree(support.TINY, self.path("model"))
        [weights] = model.glob("*.safetensors")
        arrays = support.read_safetensors(weights)
        arrays["model.norm.weight"][0] = np.nan
        support.write_safetensors(weights, arrays)
        self.fails("not finite", model=model, save_state=state)
        self.assertEqual(list(state.parent.iterdir()), [])


if __name__ == "__main__":
    unittest.main()
