#!/usr/bin/env python3
"""lolcats_generate and the exported model in transformers write the same tokens, and lolcats_text the same as text."""

import json

import numpy as np

from tool_support import SPECIAL, ToolTest, load_model, main, needs, needs_program, support, write_tokenizer

PAD, EOS, NEW = 0, 2, 40


@needs_program("lolcats_generate")
@needs("torch", "transformers", "tokenizers")
class Generation(ToolTest):
    def setUp(self):
        """The tiny teacher, a little trained as a student, and prompts of several lengths out of its language."""
        super().setUp()
        self.model = self.path("model")
        support.shutil.copytree(support.TINY, self.model)
        write_tokenizer(self.model, 256)
        corpus = support.make_corpus(self.path("tokens.h5"), sequences=24, length=130, seed=3)
        tokens = support.read_hdf5(corpus)["tokens"]
        self.prompts = [tokens[row, :length].tolist() for row, length in enumerate((100, 3, 47, 64))]
        self.corpus = corpus

    def train(self, kind):
        work = self.path(kind)
        inputs = {"model": self.model, "tokens": self.corpus, "work": work, "window": 16, "attention": kind, "steps": 4,
                  "batch_size": 4, "validation": 4, "threads": 2, "lr": 0.01}
        support.run("block", **inputs)
        support.run("lora", **inputs, feature_maps=work / "transfer")
        return {"model": self.model, "feature_maps": work / "transfer", "adapter": work / "lora"}

    def by_transformers(self, directory):
        import torch
        model, width = load_model(directory), max(map(len, self.prompts))
        tokens, mask = np.full((len(self.prompts), width), PAD), np.zeros((len(self.prompts), width), int)
        for row, prompt in enumerate(self.prompts):
            tokens[row, width - len(prompt):], mask[row, width - len(prompt):] = prompt, 1
        out = model.generate(torch.as_tensor(tokens), attention_mask=torch.as_tensor(mask), max_new_tokens=NEW,
                             do_sample=False, pad_token_id=PAD, eos_token_id=EOS)
        return [self.until_end(row) for row in out[:, width:].tolist()]

    @staticmethod
    def until_end(tokens):
        """Without the end mark and what is behind it."""
        return tokens[:tokens.index(EOS)] if EOS in tokens else tokens

    def test_same_tokens_and_text(self):
        file = self.path("prompts.jsonl")
        file.write_text("".join(json.dumps({"tokens": prompt}) + "\n" for prompt in self.prompts))
        for kind in ("terrace", "sliding", "none"):
            trained = self.train(kind)
            expected = self.by_transformers(self.export(f"{kind} out", dtype="f32", **trained))
            lines = support.run("generate", prompts=file, max_new_tokens=NEW, dtype="f32", **trained).splitlines()
            actual = [self.until_end(json.loads(line)["tokens"]) for line in lines]
            self.assertEqual(actual, expected, kind)
            self.assertGreater(len(set(map(tuple, expected))), 1)
        self.check_text(trained, expected)

    def check_text(self, trained, expected):
        def words(tokens):
            return " ".join(f"w{token}" for token in tokens if token >= len(SPECIAL))

        prompts = [" ".join(SPECIAL[token] if token < len(SPECIAL) else f"w{token}" for token in prompt[1:])
                   for prompt in self.prompts]  # BOS is put before them
        done = self.run_tool("generate/lolcats_text", *prompts, json=True, max_new_tokens=NEW, dtype="f32",
                             program=support.BIN / "lolcats_generate", **trained)
        texts = [json.loads(line)["text"] for line in done.stdout.splitlines()]
        self.assertEqual([" ".join(text.split()) for text in texts], [words(tokens) for tokens in expected])


if __name__ == "__main__":
    main()
