"""Results of speed, for people."""

from shapes import SHAPES, TASKS

NAMES = {"teacher": "teacher forward", "transfer": "stage 1", "lora": "LoRA"}
PARTS = (("GEMM", ("matrix products", "low-rank products")),
         ("attention, teacher", ("teacher attention",)),
         ("attention, student", ("student forward", "student backward", "student cross-entropy")),
         ("elementwise, norms, RoPE", ("elementwise, norm, rope",)),
         ("optimiser", ("optimizer",)),
         ("between", ("other (host, launches)",)))


def ratio(result):
    return result["ours"]["tokens_per_second"] / result["theirs"]["tokens_per_second"]


def line(result):
    return (f"{result['shape']:12} {result['task']:9} {result['threads']} threads: ours "
            f"{result['ours']['tokens_per_second']:.0f} tokens/s, PyTorch ({result['mode']}, {result['dtype']}) "
            f"{result['theirs']['tokens_per_second']:.0f}: {ratio(result):.2f} times; memory "
            f"{megabytes(result['ours'])} and {megabytes(result['theirs'])} MB")


def megabytes(side):
    return f"{side['memory'] / 1e6:.0f}"


def order(result):
    return list(SHAPES).index(result["shape"]), TASKS.index(result["task"]), result["threads"]


def rate(side):
    return f"{side['tokens_per_second']:.0f} ± {100 * side['spread']:.0f} %"


def row(cells):
    return "| " + " | ".join(map(str, cells)) + " |\n"


def head(cells, left):
    return row(cells) + "|---" * left + "|--:" * (len(cells) - left) + "|\n"


def speed_table(results):
    text = head(["shape", "task", "PyTorch as", "threads", "ours, tokens/s", "PyTorch, tokens/s", "ratio", "ours, MB",
                 "PyTorch, MB", "part"], 3)
    for r in results:
        text += row([r["shape"], NAMES[r["task"]], f"{r['mode']}, {r['dtype']}", r["threads"], rate(r["ours"]),
                     rate(r["theirs"]), f"{ratio(r):.2f}", megabytes(r["ours"]), megabytes(r["theirs"]),
                     f"{r['ours']['memory'] / r['theirs']['memory']:.2f}"])
    return text


def split_row(r):
    """Shares of a step, GEMM's rate, and what part of the peak it is: the best of both libraries' products."""
    split = r["split"]
    kernels = split["kernels"]
    total = sum(k["seconds"] for k in kernels.values())
    cells = [f"{100 * sum(k['seconds'] for k in kernels.values() if k['class'] in classes) / total:.0f} %"
             for _, classes in PARTS]
    products = kernels["weight_products"]
    achieved, peak = products["flops"] / products["seconds"], max(split["peak_flops"], r["peak_flops"])
    return row([r["shape"], NAMES[r["task"]], r["threads"], *cells, f"{achieved / 1e9:.0f}", f"{peak / 1e9:.0f}",
                f"{achieved / peak:.2f}"])


def markdown(kept):
    results = sorted(kept["results"], key=order)
    about = kept["about"]
    text = (f"{about['processor']}, {about['cores']} cores; {about['programs']}; PyTorch {results[0]['torch']}; "
            f"{min(r['date'] for r in results)} to {max(r['date'] for r in results)}\n\n")
    text += speed_table(results)
    with_split = [r for r in results if "split" in r]
    if with_split:
        text += "\n" + head(["shape", "task", "threads", *(name for name, _ in PARTS), "GEMM, GFLOP/s",
                             "peak, GFLOP/s", "part of it"], 2)
        text += "".join(map(split_row, with_split))
    files = [r for r in results if "files" in r["ours"]]
    if files:
        text += "\n" + head(["shape", "task", "threads", "files", "waiting for ranks"], 2)
        text += "".join(row([r["shape"], NAMES[r["task"]], r["threads"], f"{100 * r['ours']['files']:.1f} %",
                             f"{100 * r['ours']['wait']:.1f} %"]) for r in files)
    return text
