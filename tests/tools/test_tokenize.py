#!/usr/bin/env python3
"""Token stores from texts: template, labels, packing, splits; and the programs run on them."""

import gzip
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np

from tool_support import ToolTest, command_line, main, needs, run_here, run_tool, support, write_tokenizer

BOS, EOS, UNKNOWN, IGNORED = 1, 2, 3, -100


def words(tokens):
    return " ".join(f"w{token}" for token in tokens)


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


@needs("transformers", "tokenizers", "h5py")
class Tokenize(ToolTest):
    def setUp(self):
        super().setUp()
        write_tokenizer(self.path("tokenizer"), 256)
        self.rng = np.random.default_rng(4)

    def tokenize(self, command, *paths, **options):
        settings = {"tokenizer": self.path("tokenizer"), "length": 32, "out": self.path("out.h5"), "processes": 1}
        settings |= options
        by = run_tool if settings["processes"] > 1 else run_here
        self.printed = self.run_tool("tokenize/lolcats_tokenize", command, *paths, by=by, **settings).stderr
        return support.read_hdf5(self.path("out.h5"))

    def attributes(self, name="out.h5"):
        with h5py.File(self.path(name), "r") as file:
            return dict(file.attrs)

    def documents(self, count, most=60):
        return [self.rng.integers(4, 256, self.rng.integers(1, most)).tolist() for _ in range(count)]

    def packed(self, sequences, length=32):
        stream = [token for sequence in sequences for token in sequence]
        rows = len(stream) // length
        return np.array(stream[:rows * length]).reshape(rows, length)


class Text(Tokenize):
    def write_lines(self, name, documents, key="text"):
        text = "".join(json.dumps({key: words(document), "meta": 1}) + "\n" for document in documents).encode()
        compress = {"gz": gzip.compress}.get(name.rsplit(".", 1)[-1], bytes)
        self.path(name).write_bytes(compress(text))
        return self.path(name)

    def test_json_lines(self):
        documents = self.documents(50)
        expected = self.packed([BOS, *document, EOS] for document in documents)
        for name in ("corpus.jsonl", "corpus.jsonl.gz"):
            stored = self.tokenize("text", self.write_lines(name, documents, "body"), field="body")
            np.testing.assert_array_equal(stored["tokens"], expected)
            self.assertEqual(sorted(stored), ["tokens"])
            self.path("out.h5").unlink()

    def test_zstandard(self):
        try:
            import zstandard
        except ImportError:
            self.path("corpus.jsonl.zst").write_bytes(b"")
            done = run_tool("tokenize/lolcats_tokenize", "text", self.path("corpus.jsonl.zst"), out=self.path("out.h5"),
                            tokenizer=self.path("tokenizer"), processes=1)
            return self.assert_refused(done, "zstandard")
        documents = self.documents(50)
        text = "".join(json.dumps({"text": words(document)}) + "\n" for document in documents).encode()
        frames = [zstandard.compress(part) for part in (text[:1000], text[1000:])]
        skipped = b"\x50\x2a\x4d\x18" + b"\x03\0\0\0" + b"any"
        self.path("corpus.jsonl.zst").write_bytes(skipped + frames[0] + skipped + frames[1])
        stored = self.tokenize("text", self.path("corpus.jsonl.zst"))
        np.testing.assert_array_equal(stored["tokens"], self.packed([BOS, *document, EOS] for document in documents))

    @needs("zstandard")
    def test_damaged_zstandard(self):
        import zstandard
        text = " ".join(words(document) for document in self.documents(3000)).encode()
        frame = zstandard.ZstdCompressor(write_checksum=True).compress(text)
        flipped = bytearray(frame)
        flipped[len(frame) // 2] ^= 0x10
        for content in (frame[:len(frame) // 2], frame[:-1], frame + frame[:-1], flipped, frame + b"other", b"text"):
            self.path("damaged.txt.zst").write_bytes(content)
            self.refuse("damaged.txt.zst", "damaged or cut off", "fetch it again", paths=[self.path("damaged.txt.zst")])

    def test_plain_text_in_pieces(self):
        lines = self.documents(6000)
        self.path("long.txt").write_text("\n".join(map(words, lines)))
        self.assertGreater(self.path("long.txt").stat().st_size, 3 << 18)
        stored = self.tokenize("text", self.path("long.txt"), length=128)
        np.testing.assert_array_equal(stored["tokens"], self.packed([[BOS, *sum(lines, []), EOS]], 128))

    def test_many_processes_keep_the_order_and_shards_too(self):
        shards = [self.documents(1500, 300) for _ in range(3)]
        self.path("shards").mkdir()
        for i, documents in enumerate(shards):
            self.write_lines(f"shards/{i}.jsonl.gz", documents)
        stored = self.tokenize("text", self.path("shards"), processes=2)
        np.testing.assert_array_equal(stored["tokens"],
                                      self.packed([BOS, *document, EOS] for document in sum(shards, [])))
        sources = json.loads(self.attributes()["sources"])
        self.assertEqual([source["name"] for source in sources], [f"{i}.jsonl.gz" for i in range(3)])

    def start(self, file, processes=2, **streams):
        line = command_line("tokenize/lolcats_tokenize", ["text", file], {
            "tokenizer": self.path("tokenizer"), "length": 32, "out": self.path("out.h5"), "processes": processes})
        process = subprocess.Popen([sys.executable, *line], text=True, **streams)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def workers(self, process):
        """The two processes that tokenise, once they are there."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = [pid for pid in support.descendants(process.pid) if b"spawn_main" in command_of(pid)]
            if len(found) == 2:
                return found
            time.sleep(0.02)
        self.fail("no processes that tokenise")

    def test_killed_process_ends_the_run(self):
        """As the kernel kills one where memory runs out."""
        process = self.start(self.write_lines("corpus.jsonl", self.documents(9)), stderr=subprocess.PIPE)
        support.send(signal.SIGKILL, *self.workers(process))
        _, errors = process.communicate(timeout=120)
        done = subprocess.CompletedProcess(process.args, process.returncode, "", errors)
        self.assert_refused(done, "killed by signal 9", "--processes")
        self.assertEqual([path.name for path in self.directory.glob("*out*")], [])

    def test_processes_end_with_the_first(self):
        process = self.start(self.write_lines("corpus.jsonl", self.documents(9)), stderr=subprocess.DEVNULL)
        workers = self.workers(process)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 120
        while any(map(support.is_running, workers)) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertEqual([pid for pid in workers if support.is_running(pid)], [])

    def test_empty_file_on_a_terminal(self):
        """Where progress is shown."""
        self.path("empty.txt").touch()
        shown, terminal = os.openpty()
        process = self.start(self.path("empty.txt"), processes=1, stderr=terminal)
        self.assertEqual(process.wait(timeout=120), 1)
        os.close(terminal)
        text = os.read(shown, 1 << 16).decode()
        os.close(shown)
        self.assertIn("would hold no sequence", text)
        self.assertNotIn("Traceback", text)

    def test_full_disk(self):
        """HDF5 fails when the store is closed, or with much of it written."""
        for documents, limit in ((self.documents(50), 1000), ([self.rng.integers(4, 256, 500000).tolist()], 200000)):
            file = self.write_lines("corpus.jsonl", documents)
            done = run_tool("tokenize/lolcats_tokenize", "text", file, out=self.path("out.h5"), processes=1, length=32,
                            tokenizer=self.path("tokenizer"),
                            prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
            self.assert_refused(done, "out.h5: cannot be written", "File too large", "make room")
            self.assertEqual([path.name for path in self.directory.glob("*out*")], [])

    def test_limit_and_source_hash(self):
        files = [self.write_lines(f"{i}.jsonl", self.documents(12000)) for i in range(2)]
        stored = self.tokenize("text", *files, max_tokens=3200)
        self.assertTrue(100 <= len(stored["tokens"]) < 110)
        source, = json.loads(self.attributes()["sources"])  # the second was not looked at
        self.assertEqual(source["sha256"], hashlib.sha256(files[0].read_bytes()).hexdigest())
        self.assertEqual(source["bytes"], files[0].stat().st_size)

    def test_validation(self):
        documents = self.documents(60)
        file = self.write_lines("corpus.jsonl", documents)
        ended = [[BOS, *document, EOS] for document in documents]
        held, rest = self.packed(ended[:10]), self.packed(ended[10:])
        stored = self.tokenize("text", file, validation=10)
        np.testing.assert_array_equal(stored["tokens"], np.concatenate([held, rest]))
        self.assertEqual(self.attributes()["validation_sequences"], len(held))
        self.assertIn(f"--validation {len(held)}", self.printed)
        self.path("out.h5").unlink()
        stored = self.tokenize("text", file, validation=10, validation_out=self.path("held.h5"))
        np.testing.assert_array_equal(stored["tokens"], rest)
        np.testing.assert_array_equal(support.read_hdf5(self.path("held.h5"))["tokens"], held)

    def test_stored_form(self):
        self.tokenize("text", self.write_lines("corpus.jsonl", self.documents(400)))
        with h5py.File(self.path("out.h5"), "r") as file:
            tokens = file["tokens"]
            self.assertEqual((tokens.dtype, tokens.compression, tokens.chunks[1]), (np.int32, "gzip", 32))
            self.assertLess(tokens.id.get_storage_size(), 0.6 * tokens.size * 4)
        identity = json.loads(self.attributes()["tokenizer"])
        self.assertEqual((identity["vocab_size"], identity["bos"], identity["eos"]), (256, BOS, EOS))

    def peak_bytes(self, *arguments, **options):
        """Of that process alone: getrusage() has the largest of all that ended before."""
        line = [sys.executable, *command_line("tokenize/lolcats_tokenize", arguments, options)]
        process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0)
        return usage.ru_maxrss * 1024

    def test_memory_does_not_grow_with_the_corpus(self):
        peaks = []
        for count in (1, 20):
            name = f"{count}.jsonl"
            line = json.dumps({"text": words(self.rng.integers(4, 256, 2000))}) + "\n"
            self.path(name).write_text(line * 100 * count)
            peaks.append(self.peak_bytes("text", self.path(name), tokenizer=self.path("tokenizer"),
                                         out=self.path(f"{count}.h5"), processes=1, length=512))
        size = self.path("20.jsonl").stat().st_size
        print(f"\npeaks {[round(peak / 1e6) for peak in peaks]} MB, corpus {size / 1e6:.0f} MB")
        self.assertLess(peaks[1] - peaks[0], size / 2)

    def refuse(self, *words_, paths, **options):
        settings = {"tokenizer": self.path("tokenizer"), "length": 32, "out": self.path("out.h5"), "processes": 1}
        done = run_here("tokenize/lolcats_tokenize", "text", *paths, **{**settings, **options})
        self.assert_refused(done, *words_)
        self.assertEqual([path.name for path in self.directory.glob("*out*")], [])

    def test_bad_input(self):
        good = self.write_lines("good.jsonl", self.documents(9))
        self.path("bad.jsonl").write_text('{"text": "w5"}\n\n{"text": "w5"\n')
        self.refuse("bad.jsonl", "line 3", "not JSON", paths=[self.path("bad.jsonl")])
        self.refuse("good.jsonl", "line 1", "'other'", paths=[good], field="other")
        self.refuse("no sequence", paths=[good], length=100000)
        self.refuse("--length", "at most", paths=[good], length=1 << 30)
        self.refuse("two names", paths=[good], validation=2, validation_out=self.path("tokenizer/../out.h5"))
        self.refuse("tokenizer cannot be loaded", paths=[good], tokenizer=self.directory)
        self.path("latin.txt").write_bytes("é".encode("latin-1") * 9)
        self.refuse("latin.txt", "UTF-8", paths=[self.path("latin.txt")])
        self.path("half.jsonl").write_text('{"text": "w5"}\n{"text": "w5 \\ud800 w6"}\n')
        self.refuse("half.jsonl", "line 2", "'text'", "\\ud800", paths=[self.path("half.jsonl")])
        self.path("deep.jsonl").write_text('{"text": "w5"}\n{"text": ' + "[" * 100000 + "\n")
        self.refuse("deep.jsonl", "line 2", "not JSON", paths=[self.path("deep.jsonl")])
        self.path("cut.txt.gz").write_bytes(gzip.compress(b"w5 " * 50000)[:-9])
        self.refuse("cut.txt.gz", "cut off", paths=[self.path("cut.txt.gz")])


class Alpaca(Tokenize):
    def samples(self, count):
        samples = []
        for i in range(count):
            instruction, context, answer = self.documents(3, 30)
            samples.append({"instruction": words(instruction), "input": words(context) if i % 2 else "",
                            "output": words(answer)})
        return samples

    def expected(self, samples):
        """The template by hand: words of it that the tokenizer does not know are all UNKNOWN."""
        tokens, labels = [], []
        for sample in samples:
            text = ("Below is an instruction that describes a task, paired with an input that provides further context. "
                    if sample["input"] else "Below is an instruction that describes a task. ")
            text += "Write a response that appropriately completes the request.\n\n### Instruction:\n"
            text += sample["instruction"] + "\n\n"
            text += f"### Input:\n{sample['input']}\n\n" if sample["input"] else ""
            text += "### Response:\n"
            prompt = [BOS, *(int(word[1:]) if word[0] == "w" and word[1:].isdigit() else UNKNOWN
                             for word in text.split())]
            answer = [*(int(word[1:]) for word in sample["output"].split()), EOS]
            tokens.append(prompt + answer)
            labels.append([IGNORED] * len(prompt) + answer)
        tokens, labels = self.packed(tokens), self.packed(labels)
        labelled = (labels[:, 1:] != IGNORED).any(1)
        return tokens[labelled], labels[labelled], int((~labelled).sum())

    def test_template_labels_and_split(self):
        samples = self.samples(260)
        self.path("alpaca.json").write_text(json.dumps(samples))
        stored = self.tokenize("alpaca", self.path("alpaca.json"), validation_out=self.path("held.h5"))
        for name, part in (("held.h5", samples[:200]), ("out.h5", samples[200:])):
            tokens, labels, dropped = self.expected(part)
            stored = support.read_hdf5(self.path(name))
            np.testing.assert_array_equal(stored["tokens"], tokens, name)
            np.testing.assert_array_equal(stored["labels"], labels, name)
            self.assertEqual(self.attributes(name)["dropped_unlabelled"], dropped)
            self.assertGreater(dropped, 0)

    def test_a_label_that_nothing_predicts_keeps_no_sequence(self):
        """The only one of the second sequence is its first token: the end of the first sample."""
        samples = [{"instruction": "w5", "input": "", "output": words(range(6, 16))},
                   {"instruction": words([5] * 20), "input": "", "output": words([7] * 30)}]
        self.path("alpaca.json").write_text(json.dumps(samples))
        stored = self.tokenize("alpaca", self.path("alpaca.json"), validation=0)
        tokens, labels, dropped = self.expected(samples)
        self.assertEqual((len(tokens), dropped), (2, 1))
        np.testing.assert_array_equal(stored["tokens"], tokens)
        np.testing.assert_array_equal(stored["labels"], labels)
        self.assertEqual(self.attributes()["dropped_unlabelled"], 1)

    def test_programs_run_on_it(self):
        """lolcats_eval counts the labelled tokens that have one before them, and finds the loss on them."""
        samples = self.samples(40)
        self.path("alpaca.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
        stored = self.tokenize("alpaca", self.path("alpaca.jsonl"), validation=10)
        inputs = {"model": support.TINY, "attention": "teacher", "dtype": "f32", "threads": 2}
        logits = self.path("logits.h5")
        result = support.evaluate(tokens=self.path("out.h5"), save_logits=logits, **inputs)
        labels = stored["labels"]
        self.assertEqual(result["tokens"], (labels[:, 1:] != IGNORED).sum())
        import reference
        values = support.read_hdf5(logits)["logits"].astype(np.float64)
        self.assert_close(result["loss"], reference.next_token_loss(values, labels), 1e-6)
        plain = support.write_tokens(self.path("plain.h5"), stored["tokens"], labels)
        self.assertEqual(support.evaluate(tokens=plain, **inputs)["loss"], result["loss"])
        support.run("block", model=support.TINY, tokens=self.path("out.h5"), work=self.path("work"), window=8, steps=1,
                    batch_size=2, validation=int(self.attributes()["validation_sequences"]), threads=2)

    def test_bad_input(self):
        settings = {"tokenizer": self.path("tokenizer"), "out": self.path("out.h5"), "processes": 2}
        self.path("alpaca.json").write_text(json.dumps([{"instruction": "w5", "output": 7}]))
        done = run_tool("tokenize/lolcats_tokenize", "alpaca", self.path("alpaca.json"), **settings)
        self.assert_refused(done, "alpaca.json", "entry 0", "'output'")
        self.assertFalse(self.path("out.h5").exists())


if __name__ == "__main__":
    main()
