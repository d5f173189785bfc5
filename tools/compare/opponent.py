#!/usr/bin/env python3
"""The PyTorch side: a process that holds a model and times steps of it when it is told to.

    opponent.py DIRECTORY SHAPE TASK THREADS eager|compiled

Answers each line on standard input, the number of steps to do, with a line of JSON. Memory counts from the moment
before the model is loaded: the interpreter and PyTorch's libraries are not held against it.
"""

import json
import os
import sys
import time

import torch

import reference
from shapes import ALPHA, RANK, SHAPES, Files

MSE_FACTOR = 1000.0
RATES = {"transfer": 1e-2, "lora": 1e-4}


def memory(name):
    """A figure of /proc/self/status in bytes."""
    with open("/proc/self/status", encoding="utf-8") as status:
        for line in status:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return 0


def reset_peak():
    try:
        with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
            file.write("5")
    except OSError:
        pass  # the peak then includes what compilation took


def yield_memory():
    """Where memory runs out, this process is the one that ends."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
            file.write("1000")
    except OSError:
        pass


def product_rate(dtype, size):
    """FLOP/s of a square product, the best of several."""
    a = torch.randn(size, size).to(dtype)
    best = 1e30
    for _ in range(4):
        start = time.perf_counter()
        torch.nn.functional.linear(a, a)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def faster_type():
    return max((torch.float32, torch.bfloat16), key=lambda dtype: product_rate(dtype, 768))


def read_maps(path, config):
    """[(q map, k map, mixing factors)] of each layer, as parameters in float32."""
    stored = reference.load_file(path)
    names = ("feature_map_q.mlp.layer", "feature_map_k.mlp.layer", "window_factors")
    return [[stored[f"model.layers.{i}.self_attn.{name}"].clone() for name in names]
            for i in range(config["num_hidden_layers"])]


def read_adapters(path, config):
    """[{projection: (A, B)}] of each layer."""
    stored = reference.load_file(path / "adapter_model.safetensors")
    return [{name: tuple(stored[f"base_model.model.model.layers.{i}.self_attn.{name}.lora_{part}.weight"].clone()
                         for part in "AB") for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
            for i in range(config["num_hidden_layers"])]


class Work:
    """Steps of one task, as a user of the reference runs them."""

    def __init__(self, files, task, dtype, compiled):
        shape, config = files.shape, files.config
        self.shape, self.task = shape, task
        self.teacher = reference.Teacher(config, files.model / "model.safetensors", dtype)
        self.rope = self.teacher.rope(shape.length)
        self.mask = reference.masks(shape.length, shape.window)
        self.maps = [[part.to(dtype) for part in layer] for layer in read_maps(files.maps, config)]
        self.adapters = []
        parameters = []
        if task == "transfer":
            parameters = [part.requires_grad_() for layer in self.maps for part in layer]
        if task == "lora":
            self.adapters = [{name: tuple(part.to(dtype).requires_grad_() for part in pair)
                              for name, pair in layer.items()} for layer in read_adapters(files.adapter, config)]
            parameters = [part for layer in self.adapters for pair in layer.values() for part in pair]
        self.parameters = parameters
        self.optimizer = None
        if parameters:
            self.optimizer = torch.optim.AdamW(parameters, lr=RATES[task], weight_decay=0, fused=True)
        self.micro_batches = self.inputs(files)
        self.gradient = 1e-4 * torch.randn(1, shape.length, config["hidden_size"], dtype=dtype)

        def prepare(function):
            return torch.compile(function, dynamic=False) if compiled else function
        self.teacher_layer = prepare(reference.teacher_layer)
        self.transfer_loss = prepare(reference.transfer_loss)
        self.finish = prepare(reference.finish)
        self.adapted_layer = prepare(reference.adapted_layer)
        self.head_loss = prepare(reference.head_loss)

    def inputs(self, files):
        """Tokens of each micro-batch, or one layer's residual stream."""
        import h5py
        shape = self.shape
        if shape.layer:
            x = torch.randn(1, shape.length, files.config["hidden_size"]).to(self.teacher.embedding.dtype)
            return [x] * shape.batch
        with h5py.File(files.tokens) as file:
            tokens = torch.from_numpy(file["tokens"][:]).long()
        return list(tokens.split(shape.micro_batch))

    def enter(self, part):
        return part if self.shape.layer else torch.nn.functional.embedding(part, self.teacher.embedding)

    def step(self):
        """Loss of a batch (teacher and LoRA: mean over tokens), after which the optimiser has moved."""
        run = {"teacher": self.run_teacher, "transfer": self.run_transfer, "lora": self.run_lora}[self.task]
        loss = sum(run(part) for part in self.micro_batches)
        if self.optimizer:
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return loss / len(self.micro_batches)

    def run_teacher(self, part):
        with torch.no_grad():
            x = self.enter(part)
            for layer in self.teacher.layers:
                x = self.teacher_layer(layer, x, self.teacher, self.rope)
            return float(x[0, 0, 0]) if self.shape.layer else float(self.head_loss(self.teacher, x, part))

    def run_transfer(self, part):
        """A layer's gradient is taken at once, so that memory holds one layer's weights of T x T. The last layer ends
        with its attention where nothing follows it."""
        x, total, count = self.enter(part), 0.0, len(self.teacher.layers)
        for i, layer in enumerate(self.teacher.layers):
            loss, y = self.transfer_loss(layer, x, self.teacher, self.rope, self.maps[i], self.mask, MSE_FACTOR / count)
            (loss / len(self.micro_batches)).backward()
            total += float(loss.detach())
            if i + 1 < count or self.shape.layer:
                with torch.no_grad():
                    x = self.finish(layer, x, y, self.teacher)
        return total

    def run_lora(self, part):
        x, scale = self.enter(part), ALPHA / RANK
        for layer, maps, adapters in zip(self.teacher.layers, self.maps, self.adapters):
            x = self.adapted_layer(layer, x, self.teacher, self.rope, maps, self.mask, adapters, scale)
        if self.shape.layer:
            x.backward(self.gradient)
            return float(x.detach()[0, 0, 0])
        loss = self.head_loss(self.teacher, x, part)
        (loss / len(self.micro_batches)).backward()
        return float(loss.detach())


def main():
    directory, name, task, threads, mode = sys.argv[1:]
    os.environ["OMP_NUM_THREADS"] = threads
    torch.set_num_threads(int(threads))
    yield_memory()
    before = memory("VmRSS")
    dtype = faster_type()
    peak = product_rate(torch.float32, 2048)
    work = Work(Files(SHAPES[name], directory), task, dtype, mode == "compiled")
    work.step()
    work.step()  # what is compiled anew for gradients that are there already
    reset_peak()
    print(json.dumps({"ready": True, "dtype": str(dtype).removeprefix("torch."), "torch": torch.__version__,
                      "peak_flops": peak}), flush=True)
    for line in sys.stdin:
        steps = int(line)
        start = time.perf_counter()
        for _ in range(steps):
            loss = work.step()
        seconds = time.perf_counter() - start
        print(json.dumps({"tokens_per_second": steps * work.shape.tokens / seconds, "loss": loss,
                          "memory": memory("VmHWM") - before}), flush=True)


if __name__ == "__main__":
    main()
