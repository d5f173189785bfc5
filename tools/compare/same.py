#!/usr/bin/env python3
"""Checks that both sides compute the same numbers: losses of the first optimiser steps, from the same files.

    same.py DIRECTORY SHAPE...

Three steps of each kind of training, so that gradients and the optimiser's steps count as well as the loss. Ours once
with weights and residual stream in float32, which leaves only the order of sums, and once as it is timed, where stage 1
rounds the residual stream to bfloat16 after every layer.
"""

import dataclasses
import sys

import torch

import ours
from opponent import Work
from shapes import SHAPES, TASKS, Files

STEPS = {"teacher": 1, "transfer": 3, "lora": 3}
FORMS = (("float32", 2e-4, ("--dtype", "f32", "--gemm", "f32")), ("as timed", 2e-2, ()))


def differences(files, threads=2):
    """(task, form, our losses, theirs, largest relative difference, what is allowed) of each."""
    for task in TASKS:
        work = Work(files, task, torch.float32, False)
        theirs = [work.step() for _ in range(STEPS[task])]
        del work
        for form, allowed, options in FORMS:
            mine = ours.losses(files, task, STEPS[task], threads, *options)
            assert len(mine) == len(theirs)
            yield task, form, mine, theirs, max(abs(a / b - 1) for a, b in zip(mine, theirs)), allowed


def main():
    wrong = 0
    torch.set_num_threads(2)
    for name in sys.argv[2:]:
        shape = dataclasses.replace(SHAPES[name], layer=False)  # one layer in a whole model, with its loss
        for task, form, mine, theirs, difference, allowed in differences(Files(shape, sys.argv[1])):
            good = difference <= allowed  # false for NaN
            wrong += not good
            print(f"{name:12} {task:9} {form:9} ours {mine[-1]:.7g}, PyTorch's {theirs[-1]:.7g} at step "
                  f"{len(mine)}; apart by {difference:.1e}, allowed {allowed:.0e}{'' if good else ': NOT THE SAME'}",
                  flush=True)
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
