"""Where a conversion keeps what it writes block by block."""

from report import InspectionError


def block_files(path, room, extension, program):
    """The files of a work directory, of its folder `room` or of one block, in the order of the blocks."""
    if path.is_file():
        return [path]
    for directory in (path / room, path):
        files = sorted(directory.glob(f"block_*{extension}"), key=lambda file: (len(file.name), file.name))
        if files:
            return files
    raise InspectionError(f"{path}: holds no {room}/block_XX{extension}; name a work directory after {program}")
