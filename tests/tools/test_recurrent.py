#!/usr/bin/env python3
"""The exported model at work: its cache gives the parallel form's numbers at any split, in batches, compiled."""

import copy
import tempfile
from pathlib import Path

import numpy as np

from tool_support import ToolTest, load_model, logits, main, needs, run_here

import reference

FORMS = ("terrace", "sliding", "none")
WINDOW, LENGTH, BATCH = 5, 41, 3
TOLERANCE = 1e-5
PAD = 0
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 32,
          "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
          "vocab_size": 61, "rms_norm_eps": 1e-5, "rope_theta": 100.0, "max_position_embeddings": 512,
          "bos_token_id": 1, "eos_token_id": None, "pad_token_id": PAD}


@needs("torch", "transformers")
class Recurrent(ToolTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        import torch
        cls.torch = torch
        directory = tempfile.TemporaryDirectory(prefix="lolcats-test-")
        cls.addClassCleanup(directory.cleanup)
        cls.shared = Path(directory.name)

    def make(self, kind, segment=None, affine=False, layers=2):
        """A random model, exported once for all tests, and loaded."""
        rng = np.random.default_rng(5)
        name = f"{kind} {affine} {layers}"
        self.exported = self.shared / name
        if not self.exported.exists():
            config = {**CONFIG, "num_hidden_layers": layers}
            reference.make_model(self.path(name), config, rng)
            form = reference.Form(kind, WINDOW, affine=affine)
            reference.write_safetensors(self.path("maps.safetensors"), reference.random_maps(config, form, rng))
            self.run_tool("export/lolcats_export", by=run_here, model=self.path(name), out=self.exported,
                          feature_maps=self.path("maps.safetensors"), attention=kind, window=WINDOW,
                          feature_map="hedgehog", affine_attention_factors="true" if affine else None)
        model = load_model(self.exported)
        if segment:
            model.config.prefill_segment = segment
        self.tokens = np.random.default_rng(9).integers(2, 61, (BATCH, LENGTH))
        return model

    def pieces(self, model, tokens, lengths, cache=None, **options):
        """Logits of tokens that go in piece by piece."""
        parts, begin = [], 0
        for length in lengths:
            with self.torch.no_grad():
                out = model(input_ids=self.torch.as_tensor(tokens[:, begin:begin + length]), cache=cache, use_cache=True,
                            **options)
            parts.append(out.logits.numpy())
            cache, begin = out.cache, begin + length
        self.cache = cache
        return np.concatenate(parts, 1)

    def test_token_by_token(self):
        for kind in FORMS:
            for affine in (False, True):
                model = self.make(kind, affine=affine)
                whole = logits(model, self.tokens, use_cache=False)
                self.assert_close(self.pieces(model, self.tokens, [1] * LENGTH), whole, TOLERANCE, kind)

    def test_every_split_of_prefill_and_decoding(self):
        for kind in FORMS:
            model = self.make(kind)
            whole = logits(model, self.tokens, use_cache=False)
            for first in range(1, LENGTH):
                second = (LENGTH - first) // 2
                lengths = [first, *[1] * min(2, second), second, *[1] * (LENGTH - first - second - min(2, second))]
                lengths = [length for length in lengths if length > 0]
                self.assert_close(self.pieces(model, self.tokens, lengths), whole, TOLERANCE, f"{kind} {lengths}")

    def test_segments_change_nothing(self):
        for kind in FORMS:
            whole = logits(self.make(kind), self.tokens, use_cache=False)
            for segment in (1, 4, 5, 7, 16):
                model = self.make(kind, segment)
                self.assert_close(logits(model, self.tokens, use_cache=False), whole, TOLERANCE, f"{kind} {segment}")
                actual = self.pieces(model, self.tokens, [LENGTH - 9, 8, 1])
                self.assert_close(actual, whole, TOLERANCE, f"{kind} {segment} cached")

    def test_cache_keeps_its_size(self):
        for kind in FORMS:
            model = self.make(kind)
            sizes = []
            for lengths in ([1], [LENGTH], [LENGTH - 1, 1]):
                self.pieces(model, self.tokens, lengths)
                sizes.append([{name: array.shape for name, array in layer.arrays().items()}
                              for layer in self.cache.layers])
            self.assertEqual(sizes[0], sizes[1])
            self.assertEqual(sizes[0], sizes[2])
            self.assertEqual(self.cache.get_seq_length(), LENGTH)

    def padded(self, side, lengths):
        """Sequences of several lengths and their mask."""
        width = max(lengths)
        tokens, mask = np.full((BATCH, width), PAD), np.zeros((BATCH, width), int)
        for row, length in enumerate(lengths):
            place = slice(width - length, None) if side == "left" else slice(length)
            tokens[row, place], mask[row, place] = self.tokens[row, :length], 1
        return tokens, mask

    def test_padding_leaves_no_trace(self):
        lengths = (29, 12, 3)
        for kind in FORMS:
            model = self.make(kind)
            for side in ("left", "right"):
                tokens, mask = self.padded(side, lengths)
                mask_ = self.torch.as_tensor(mask)
                outputs = {"whole": logits(model, tokens, attention_mask=mask_, use_cache=False),
                           "pieces": self.pieces_with_mask(model, tokens, mask, (9, 1, 1, 1, 12, 1, 1, 3))}
                for row, length in enumerate(lengths):
                    alone = logits(model, self.tokens[row:row + 1, :length], use_cache=False)[0]
                    for how, output in outputs.items():
                        self.assert_close(output[row][mask[row] == 1], alone, TOLERANCE, f"{kind} {side} {row} {how}")

    def pieces_with_mask(self, model, tokens, mask, lengths):
        parts, cache, begin = [], None, 0
        for length in lengths:
            end = begin + length
            with self.torch.no_grad():
                out = model(input_ids=self.torch.as_tensor(tokens[:, begin:end]), cache=cache, use_cache=True,
                            attention_mask=self.torch.as_tensor(mask[:, :end]))
            parts.append(out.logits.numpy())
            cache, begin = out.cache, end
        self.assertEqual(begin, tokens.shape[1])
        return np.concatenate(parts, 1)

    def greedy(self, model, prompt, count):
        """By the parallel form from scratch at every step."""
        tokens = np.array(prompt)[None]
        for _ in range(count):
            tokens = np.concatenate([tokens, logits(model, tokens, use_cache=False)[:, -1:].argmax(-1)], 1)
        return tokens[0, len(prompt):]

    def generate(self, model, tokens, mask=None, **options):
        out = model.generate(self.torch.as_tensor(tokens), do_sample=False, pad_token_id=PAD,
                             attention_mask=None if mask is None else self.torch.as_tensor(mask),
                             **{"max_new_tokens": 24, **options})
        return out[:, tokens.shape[1]:].numpy()

    def test_greedy_generation(self):
        lengths = (29, 12, 3)
        for kind in FORMS:
            model = self.make(kind)
            expected = np.stack([self.greedy(model, self.tokens[row, :length], 24)
                                 for row, length in enumerate(lengths)])
            for row, length in enumerate(lengths):
                alone = self.generate(model, self.tokens[row:row + 1, :length])
                np.testing.assert_array_equal(alone[0], expected[row], kind)
            batch = self.generate(model, *self.padded("left", lengths))
            np.testing.assert_array_equal(batch, expected, kind)
            chunked = self.generate(model, *self.padded("left", lengths), prefill_chunk_size=7)
            np.testing.assert_array_equal(chunked, expected, f"{kind}, prompt in pieces")

    def test_beams_do_not_depend_on_the_cache(self):
        for kind in ("terrace", "sliding"):
            model = self.make(kind)
            tokens, mask = self.padded("left", (17, 12, 3))
            cached, uncached = (self.generate(model, tokens, mask, num_beams=2, use_cache=use_cache, max_new_tokens=9)
                                for use_cache in (True, False))
            np.testing.assert_array_equal(cached, uncached, kind)

    def test_session_goes_on_from_a_copy(self):
        """A conversation: the cache of the first turn is copied, and two second turns start from it."""
        model = self.make("terrace")
        self.pieces(model, self.tokens[:, :20], [20])
        first = self.cache
        for tail in (self.tokens[:, 20:], self.tokens[:, 33:]):
            whole = logits(model, np.concatenate([self.tokens[:, :20], tail], 1), use_cache=False)[:, 20:]
            actual = self.pieces(model, tail, [tail.shape[1]], cache=copy.deepcopy(first))
            self.assert_close(actual, whole, TOLERANCE)

    def test_compiled(self):
        torch = self.torch
        for kind in ("sliding", "none"):
            model = self.make(kind, layers=1)
            tokens, mask = self.padded("left", (29, 12, 3))
            expected = self.generate(model, tokens, mask)
            whole = logits(model, self.tokens, use_cache=False)
            torch._dynamo.reset()
            counter = Counter()
            model.forward = torch.compile(model.forward, backend=counter, fullgraph=True)
            self.assert_close(logits(model, self.tokens, use_cache=False), whole, TOLERANCE, kind)
            np.testing.assert_array_equal(self.generate(model, tokens, mask), expected, kind)
            self.assertLess(counter.graphs, 6, "a token more is not to be compiled anew")

    def test_compiled_by_inductor(self):
        torch = self.torch
        model = self.make("terrace", layers=1)
        expected = self.generate(model, *self.padded("left", (29, 12, 3)))
        torch._dynamo.reset()
        options = {"compile_config": compile_everywhere()}
        np.testing.assert_array_equal(self.generate(model, *self.padded("left", (29, 12, 3)), **options), expected)

    def test_gradients_reach_every_parameter(self):
        torch = self.torch
        for kind in FORMS:
            model = self.make(kind).train()
            tokens = torch.as_tensor(self.tokens)
            model(input_ids=tokens, labels=tokens).loss.backward()
            for name, parameter in model.named_parameters():
                self.assertTrue(parameter.grad is not None and torch.isfinite(parameter.grad).all(), name)
                self.assertGreater(parameter.grad.abs().max(), 0, f"{kind} {name}")

    def test_bfloat16(self):
        """Weights and the residual stream in bfloat16, feature maps and state in float32; still one form."""
        torch = self.torch
        for kind in FORMS:
            self.make(kind)
            model = load_model(self.exported, dtype=torch.bfloat16)
            self.assertEqual(model.model.layers[0].self_attn.feature_map_q.mlp.layer.dtype, torch.float32)
            self.assertEqual(model.model.layers[0].self_attn.q_proj.weight.dtype, torch.bfloat16)
            whole = logits(model, self.tokens, use_cache=False)
            with torch.no_grad():
                first = model(input_ids=torch.as_tensor(self.tokens[:, :20]), use_cache=True)
                rest = [model(input_ids=torch.as_tensor(self.tokens[:, i:i + 1]), cache=first.cache).logits
                        for i in range(20, LENGTH)]
            actual = torch.cat([first.logits, *rest], 1).float().numpy()
            self.assert_close(actual, whole, 0.02, kind)

    def test_what_is_refused(self):
        torch, model = self.torch, self.make("terrace")
        tokens = torch.as_tensor(self.tokens)
        with self.assertRaisesRegex(ValueError, "only padding can be masked"):
            model(input_ids=tokens, attention_mask=torch.ones(BATCH, 1, LENGTH, LENGTH))
        with self.assertRaisesRegex(ValueError, "either input_ids or inputs_embeds"):
            model.model()
        out = model(input_ids=tokens, use_cache=True)
        with self.assertRaisesRegex(RuntimeError, "cannot forget"):
            out.cache.crop(-1)


def compile_everywhere():
    from transformers import CompileConfig
    config = CompileConfig(mode="default", fullgraph=True)
    config._compile_all_devices = True
    return config


class Counter:
    """A compiler that runs graphs as they are, and counts them."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


if __name__ == "__main__":
    main()
