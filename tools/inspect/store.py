"""Reading hidden-state stores (io/hidden_store.hpp says what is in them) in pieces."""

import h5py
import numpy as np

from block_files import block_files
from report import InspectionError, ranges

FORMAT_VERSION = 2
PIECE_BYTES = 4 << 20
RERUN = "run lolcats_hidden again"
IDENTITY = ("model_identity", "tokens_identity")
TEACHER = ("dtype", "gemm")  # how the teacher was computed: stores that differ in it may be compared, but not mixed


def widen(bits):
    """Stored bfloat16 bits as float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


class Store:
    """One block's file, open for reading."""

    def __init__(self, path):
        self.path = path
        try:
            self.file = h5py.File(path, "r")
            self.states = self.file["hidden_states"]
            self.checksums = np.asarray(self.file["checksums"])
            self.marks = np.asarray(self.file["done"])
            self.require_version(int(self.file.attrs["format_version"]))
            self.block, self.layer = int(self.file.attrs["block"]), int(self.file.attrs["layer"])
            self.identity = {name: as_text(self.file.attrs[name]) for name in IDENTITY}
            self.teacher = " ".join(f"--{name} {as_text(self.file.attrs[name])}" for name in TEACHER)
            self.type = self.states.id.get_type()
        except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            reason = str(error).strip("\"'")
            raise InspectionError(f"{path}: is no store of hidden states ({reason}); {RERUN}") from error
        if not self.holds_states():
            raise InspectionError(f"{path}: its states are not [n, T, D] of bfloat16 or float32; {RERUN}")
        if not self.marks.shape == self.checksums.shape == self.shape[:1] or self.checksums.dtype.kind != "u":
            raise InspectionError(f"{path}: its checksums and done marks are not one a sequence; {RERUN}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def require_version(self, version):
        if version != FORMAT_VERSION:
            raise InspectionError(f"{self.path}: has format version {version}; this program reads {FORMAT_VERSION}; "
                                  f"{RERUN} with --fresh")

    def holds_states(self):
        return (self.type.get_class() == h5py.h5t.FLOAT and self.type.get_size() in (2, 4)
                and self.shape is not None and len(self.shape) == 3 and min(self.shape[1:]) > 0)

    @property
    def shape(self):
        return self.states.shape

    @property
    def dtype(self):
        return "bfloat16" if self.type.get_size() == 2 else "float32"

    def done(self):
        return np.flatnonzero(self.marks == 1)

    def missing(self):
        return np.flatnonzero(self.marks != 1)

    def sequence_bytes(self):
        return int(np.prod(self.shape[1:])) * self.type.get_size()

    def pieces(self, sequence):
        """(first token, stored bytes, float32 [rows, D]) of a sequence. The bytes come as they are stored: HDF5 converts
        nothing."""
        _, length, width = self.shape
        size = self.type.get_size()
        step = max(1, PIECE_BYTES // (width * 4))  # the same for both types
        for first in range(0, length, step):
            rows = min(step, length - first)
            raw = np.empty((rows, width), np.uint16 if size == 2 else np.float32)
            space = self.states.id.get_space()
            space.select_hyperslab((int(sequence), first, 0), (1, rows, width))
            try:
                self.states.id.read(h5py.h5s.create_simple((1, rows, width)), space, raw, self.type)
            except OSError as error:
                raise InspectionError(f"{self.path}: sequence {sequence} cannot be read ({error}); {RERUN}") from error
            yield first, raw, widen(raw) if size == 2 else raw


def as_text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def store_files(path):
    return block_files(path, "hidden", ".h5", "lolcats_hidden")


def check_complete(store):
    missing = store.missing()
    if missing.size == 0:
        return []
    return [f"{store.path}: {missing.size} of {store.shape[0]} sequences are not done ({ranges(missing.tolist())}); "
            f"{RERUN}: it goes on with what is missing"]


def check_same_run(stores):
    """Blocks of one directory come from one model, token file, type and arithmetic, and none is left out."""
    problems, first = [], stores[0]
    for store in stores[1:]:
        for name in IDENTITY:
            if store.identity[name] != first.identity[name]:
                problems.append(f"{store.path}: its {name.replace('_', ' ')} is not that of {first.path}; {RERUN}")
        if (store.shape, store.dtype) != (first.shape, first.dtype):
            problems.append(f"{store.path}: {store.dtype} {list(store.shape)} differs from {first.path}; {RERUN}")
        elif store.teacher != first.teacher:
            problems.append(f"{store.path}: was computed with {store.teacher}, {first.path} with {first.teacher}; {RERUN} "
                            "with --fresh")
    absent = set(range(1, stores[-1].block + 1)) - {store.block for store in stores}
    if absent and len(stores) > 1:
        problems.append(f"{first.path.parent}: block {ranges(sorted(absent))} has no file; {RERUN}")
    return problems
