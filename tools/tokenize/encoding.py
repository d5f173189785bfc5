"""From texts to tokens and labels, by many processes in the order of the texts."""

import hashlib
import os
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np

from tool_error import ToolError
from workers import in_order

IGNORED = -100
PREAMBLE = "Below is an instruction that describes a task"
REQUEST = "Write a response that appropriately completes the request.\n\n"
WITH_INPUT = (f"{PREAMBLE}, paired with an input that provides further context. {REQUEST}"
              "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n")
WITHOUT_INPUT = f"{PREAMBLE}. {REQUEST}" "### Instruction:\n{instruction}\n\n### Response:\n"


def alpaca_prompt(instruction, context):
    """The template's text before the answer. Braces in what is put in stay as they are."""
    template = WITH_INPUT if context else WITHOUT_INPUT
    return template.format(instruction=instruction, input=context)


class Encoder:
    """A Hugging Face tokenizer of a local directory."""

    def __init__(self, directory):
        try:
            from transformers import AutoTokenizer
        except ImportError as missing:
            raise ToolError(f"this Python has no {missing.name}: run with one that has transformers and tokenizers") from None
        self.directory = Path(directory)
        if not self.directory.is_dir():
            raise ToolError(f"{directory}: is no directory; give the Hugging Face directory of the model or its tokenizer")
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
        except Exception as error:  # of many kinds
            reason = " ".join(str(error).split())[:160]
            raise ToolError(f"{directory}: its tokenizer cannot be loaded ({reason}); fetch its tokenizer files") from None
        self.bos, self.eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        if self.eos is None:
            raise ToolError(f"{directory}: the tokenizer has no end-of-sequence token; set eos_token in its "
                            "tokenizer_config.json")

    def identity(self):
        """What tells this tokenizer from others: hash of its files, size, special tokens."""
        digest = hashlib.sha256()
        for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
            if (self.directory / name).exists():
                digest.update(name.encode() + (self.directory / name).read_bytes())
        return {"name": self.directory.resolve().name, "class": type(self.tokenizer).__name__,
                "vocab_size": len(self.tokenizer), "bos": self.bos, "eos": self.eos, "sha256": digest.hexdigest()}

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False)

    def start(self):
        return [] if self.bos is None else [self.bos]

    def sample(self, prompt, answer):
        """Tokens and labels of an instruction and its answer: the prompt is not labelled."""
        prompt, answer = self.start() + self.encode(prompt), [*self.encode(answer), self.eos]
        return np.array(prompt + answer, np.int32), np.array([IGNORED] * len(prompt) + answer, np.int32)

    def piece(self, text, is_first, is_last):
        """Tokens of a document's piece, between BOS and EOS."""
        tokens = (self.start() if is_first else []) + self.encode(text) + ([self.eos] if is_last else [])
        return np.array(tokens, np.int32), None


def batch_encoder(directory, method):
    """The function that takes batches to what Encoder.method(*item) gives of their items."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    encode = getattr(Encoder(directory), method)
    return lambda batch: [encode(*item) for item in batch]


def batches(items, characters=1 << 20):
    """Lists of items of about so many characters together."""
    batch, size = [], 0
    for item in items:
        batch.append(item)
        size += sum(len(part) for part in item if isinstance(part, str))
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encoded(directory, method, items, processes):
    """Encoder.method(*item) of every item, in order."""
    if processes == 1:
        yield from chain.from_iterable(map(batch_encoder(directory, method), batches(items)))
        return
    with closing(in_order(batch_encoder, (directory, method), batches(items), processes)) as results:
        yield from chain.from_iterable(results)
