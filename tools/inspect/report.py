"""Tables, pictures and errors."""


class InspectionError(Exception):
    """Nothing can be looked at: one line that names the file, what is wrong and the remedy."""


def print_table(titles, rows):
    """Columns as wide as their widest cell, flush right; the last one flush left."""
    cells = [titles, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(titles))]
    for row in cells:
        line = "  ".join(cell.rjust(width) for cell, width in zip(row[:-1], widths))
        print(f"{line}  {row[-1]}".rstrip())


def ranges(numbers):
    """[1, 2, 3, 7] as "1-3, 7"; the middle of a long list is left out."""
    groups = []
    for number in numbers:
        if groups and number == groups[-1][1] + 1:
            groups[-1][1] = number
        else:
            groups.append([number, number])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in groups]
    return ", ".join(texts if len(texts) <= 12 else [*texts[:6], "...", *texts[-5:]])


def load_pyplot():
    try:
        import matplotlib
    except ImportError as error:
        raise InspectionError("--png needs matplotlib: install python3-matplotlib") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot
    return pyplot
