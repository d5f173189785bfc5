"""Packs tokens to sequences of T and writes the token store that the programs read: /tokens and /labels, int32 [n, T]."""

import contextlib
import json
import re

import h5py
import numpy as np

from encoding import IGNORED
from tool_error import FatalError
from whole_output import MAKE_ROOM, whole_file

FORMAT_VERSION = 1
CHUNK_BYTES = 1 << 18
LONGEST = (1 << 30) - 1  # tokens of a sequence, which is a chunk at least: HDF5's are less than 4 GiB
ROWS_AT_ONCE = 256


class Packer:
    """Concatenates tokens in order and cuts them every T; what is left at the end is dropped."""

    def __init__(self, length):
        self.length, self.parts, self.count = length, [], 0

    def add(self, *arrays):
        """Arrays that go side by side, tokens and perhaps labels; returns rows [k, T] of each."""
        self.parts.append(np.stack(arrays))
        self.count += self.parts[-1].shape[1]
        if self.count < self.length:
            return np.empty((len(arrays), 0, self.length), np.int32)
        joined = np.concatenate(self.parts, 1)
        rows = self.count // self.length
        cut = rows * self.length
        self.parts, self.count = [joined[:, cut:].copy()], self.count - cut
        return joined[:, :cut].reshape(len(arrays), rows, self.length)


@contextlib.contextmanager
def writing(path):
    """Tells errors of HDF5 in a line. They are fatal: HDF5 keeps what it could not write, tries again with every close,
    and crashes at the end of the process."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = re.search("error message = '([^']*)'", str(error))
        raise FatalError(f"{path}: cannot be written ({reason[1] if reason else error}); {MAKE_ROOM}") from None


@contextlib.contextmanager
def token_file(path):
    """An HDF5 file to fill, there as a whole or not at all."""
    with whole_file(path) as aside:
        file = h5py.File(aside, "w")
        try:
            yield file
        finally:
            with writing(path):
                file.close()


class TokenWriter:
    """Appends sequences to an open HDF5 file, which is to be `path`; compressed in chunks of whole sequences."""

    def __init__(self, path, file, length, with_labels):
        rows = max(1, CHUNK_BYTES // (4 * length))
        names = ["tokens", "labels"] if with_labels else ["tokens"]
        self.path, self.file, self.waiting, self.sequences, self.dropped = path, file, [], 0, 0
        with writing(path):
            self.datasets = [file.create_dataset(name, shape=(0, length), maxshape=(None, length), dtype="<i4",
                                                 chunks=(rows, length), shuffle=True, compression="gzip",
                                                 compression_opts=4, fletcher32=True) for name in names]

    def add(self, rows):
        """rows: [1 or 2, k, T]. A sequence with no labelled token after its first, which nothing predicts, is dropped:
        nothing could be learnt from it."""
        if len(rows) == 2:
            labelled = (rows[1][:, 1:] != IGNORED).any(1)
            self.dropped += int((~labelled).sum())
            rows = rows[:, labelled]
        if rows.shape[1]:
            self.waiting.append(rows)
            self.sequences += rows.shape[1]
        if sum(part.shape[1] for part in self.waiting) >= ROWS_AT_ONCE:
            self.flush()

    def flush(self):
        if not self.waiting:
            return
        rows = np.concatenate(self.waiting, 1)
        with writing(self.path):
            for dataset, values in zip(self.datasets, rows):
                dataset.resize(self.sequences, axis=0)
                dataset[self.sequences - rows.shape[1]:] = values
        self.waiting = []

    def describe(self, **attributes):
        with writing(self.path):
            for key, value in {"format_version": FORMAT_VERSION, **attributes}.items():
                self.file.attrs[key] = value if isinstance(value, (int, str)) else json.dumps(value)
