#!/usr/bin/env python3
"""A Llama made by transformers, of another shape than the models of the repository, through all programs and back."""

import numpy as np

from tool_support import ToolTest, load_model, logits, main, needs, support

STAGE_1 = {"block_layers": 2, "window": 8, "batch_size": 2, "steps": 3, "validation": 2, "lr": 0.01}


@needs("torch", "transformers")
class ForeignModel(ToolTest):
    def make(self):
        """Six heads on two, tied embeddings, scaled rotary embeddings, in many shards."""
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM
        torch.manual_seed(3)
        rope = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
        config = LlamaConfig(vocab_size=97, hidden_size=96, intermediate_size=112, num_hidden_layers=5,
                             num_attention_heads=6, num_key_value_heads=2, tie_word_embeddings=True,
                             max_position_embeddings=256, rope_parameters=rope, initializer_range=0.2)
        self.model = self.path("model")
        LlamaForCausalLM(config).save_pretrained(self.model, max_shard_size="60KB")
        self.assertGreater(len(list(self.model.glob("model-*.safetensors"))), 4)
        self.tokens = np.random.default_rng(2).integers(0, 97, (8, 61))
        support.write_tokens(self.path("tokens.h5"), self.tokens)

    def test_converted_evaluated_exported_and_loaded(self):
        self.make()
        work = self.path("work")
        inputs = {"model": self.model, "tokens": self.path("tokens.h5"), "dtype": "f32", "threads": 2}
        teacher = support.evaluate(**inputs, attention="teacher", save_logits=self.path("teacher.h5"))
        from transformers import AutoModelForCausalLM
        original = AutoModelForCausalLM.from_pretrained(self.model).eval()
        self.assert_close(logits(original, self.tokens), support.read_hdf5(self.path("teacher.h5"))["logits"], 1e-4)
        support.run("hidden", **inputs, work=work, block_layers=2)
        support.run("block", **inputs, work=work, **STAGE_1)
        trained = {"feature_maps": work / "transfer"}
        support.run("lora", **inputs, **trained, work=work, lora_rank=3, lora_alpha=6, lr=0.01, batch_size=2, steps=3,
                    validation=2)
        trained["adapter"] = work / "lora"
        student = support.evaluate(**inputs, **trained, save_logits=self.path("student.h5"))
        self.assertNotEqual(student["loss"], teacher["loss"])
        expected = support.read_hdf5(self.path("student.h5"))["logits"]
        out = self.export("out", model=self.model, **trained, shard_size="80KB")
        self.assertGreater(len(list(out.glob("model-*.safetensors"))), 4)
        self.assert_close(logits(load_model(out), self.tokens), expected, 1e-4, "exported")


if __name__ == "__main__":
    main()
