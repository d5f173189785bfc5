#!/usr/bin/env python3
"""lm-eval-harness on an exported model: a task of our own, offline, must score what its logits say."""

import json

import numpy as np

from tool_support import ToolTest, load_model, logits, main, needs, run_here, run_tool, support, write_tokenizer

TASK = """task: facts
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
"""


@needs("torch", "transformers", "lm_eval", "tokenizers", "datasets")
class Harness(ToolTest):
    QUESTIONS, CHOICES = 40, 4

    def write_task(self):
        """Questions of several lengths, longer than four windows, with answers of one to three words."""
        rng = np.random.default_rng(3)
        self.questions = []
        for _ in range(self.QUESTIONS):
            context = rng.integers(16, 256, rng.integers(5, 90)).tolist()
            choices = [rng.integers(16, 256, rng.integers(1, 4)).tolist() for _ in range(self.CHOICES)]
            self.questions.append((context, choices, int(rng.integers(self.CHOICES))))
        words = lambda tokens: " ".join(f"w{token}" for token in tokens)  # noqa: E731
        lines = [json.dumps({"question": words(context), "choices": [words(choice) for choice in choices],
                             "answer": answer}) for context, choices, answer in self.questions]
        self.path("facts.jsonl").write_text("\n".join(lines) + "\n")
        self.path("facts.yaml").write_text(TASK.format(data=self.path("facts.jsonl")))

    def expected(self, model):
        """Accuracy by log-likelihood, and by log-likelihood over the answer's length in characters."""
        right, right_by_length = 0, 0
        for context, choices, answer in self.questions:
            values = []
            for choice in choices:
                rows = logits(model, [context + choice])[0].astype(np.float64)[len(context) - 1:-1]
                log_p = rows - np.log(np.exp(rows - rows.max(-1, keepdims=True)).sum(-1, keepdims=True)) - rows.max(
                    -1, keepdims=True)
                values.append(log_p[np.arange(len(choice)), choice].sum())
            lengths = [len(" ".join(f"w{token}" for token in choice)) for choice in choices]
            right += np.argmax(values) == answer
            right_by_length += np.argmax(np.array(values) / lengths) == answer
        return right / len(self.questions), right_by_length / len(self.questions)

    def test_scores(self):
        self.write_task()
        corpus = support.make_corpus(self.path("tokens.h5"), sequences=12, length=96, seed=1)
        support.run("block", model=support.TINY, tokens=corpus, work=self.path("work"), window=16, steps=2, batch_size=4,
                    validation=4, threads=2)
        model = self.path("model")
        support.shutil.copytree(support.TINY, model)
        write_tokenizer(model, 256)
        out = self.export("out", model=model, feature_maps=self.path("work") / "transfer")
        done = self.run_tool("evaluate/lolcats_lm_eval", by=run_here, model=out, tasks="facts", include_path=self.directory,
                             dtype="float32", batch_size=7, device="cpu", json=self.path("scores.json"))
        figures = json.loads(self.path("scores.json").read_text())["tasks"]["facts"]
        self.assertEqual(figures["questions"], self.QUESTIONS)
        accuracy, by_length = self.expected(load_model(out))
        self.assertEqual((figures["acc"], figures["acc_norm"]), (accuracy, by_length))
        self.assertIn(f"{100 * accuracy:.1f}", done.stdout)
        self.assertTrue(0 < accuracy < 1)

    def test_missing_model(self):
        done = run_tool("evaluate/lolcats_lm_eval", model=self.directory)
        self.assert_refused(done, "config.json", "lolcats_export")


if __name__ == "__main__":
    main()
