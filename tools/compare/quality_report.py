"""Tables and plots of what quality_runs.py measured."""

import statistics

import quality_rows as rows
from whole_output import whole_file


def spread(values, form):
    """Mean and sample standard deviation."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return form.format(mean)
    return f"{form.format(mean)} ± {form.format(statistics.stdev(values))}"


def column(of_row, name):
    return [result[name] for result in of_row.values()]


class Report:
    """results: {row key: {seed: measurements}}. Shares of the gap are there where teacher and swap were measured."""

    def __init__(self, results):
        self.results = results
        teacher, swap = results.get("recipes/teacher"), results.get("recipes/swap only")
        self.teacher = next(iter(teacher.values())) if teacher else None
        self.swap = {seed: result["perplexity"] for seed, result in swap.items()} if swap else None

    def gap_closed(self, of_row):
        if not self.teacher or not self.swap:
            return None
        teacher = self.teacher["perplexity"]
        return [(self.swap[seed] - result["perplexity"]) / (self.swap[seed] - teacher)
                for seed, result in of_row.items() if seed in self.swap]

    def of_table(self, table):
        return [(row, self.results[row.key]) for row in rows.TABLES[table]() if row.key in self.results]

    # --- Text ---------------------------------------------------------------------------------------------------

    def table(self, table):
        lines = ["| model | perplexity | far recall | gap closed | of the teacher's recall |", "|---|---|---|---|---|"]
        for row, result in self.of_table(table):
            gap, recall = self.gap_closed(result), column(result, "recall")
            of_teacher = [value / self.teacher["recall"] for value in recall] if self.teacher else None
            cells = [row.name, spread(column(result, "perplexity"), "{:.3f}"), spread(recall, "{:.1%}"),
                     spread(gap, "{:.1%}") if gap else "", spread(of_teacher, "{:.1%}") if of_teacher else ""]
            lines.append("| " + " | ".join(cells) + " |")
        return lines

    def diagnosed(self):
        return [(row, result) for row, result in self.of_table("recipes") if row.diagnosed]

    def branch_table(self):
        lines = ["| model | what counts | perplexity | far recall | recall by distance of the fact, in tokens |",
                 "|---|---|---|---|---|"]
        for row, result in self.diagnosed():
            for branch in rows.BRANCHES:
                of_branch = {seed: each["branches"][branch] for seed, each in result.items()}
                lines.append("| " + " | ".join([
                    row.name, branch, spread(column(of_branch, "perplexity"), "{:.2f}"),
                    spread(column(of_branch, "recall"), "{:.1%}"), self.by_distance(of_branch)]) + " |")
        return lines

    @staticmethod
    def by_distance(of_branch):
        """"≤ 16: 99 %, ≤ 32: ..." over both corpora and all seeds."""
        spans, matched = {}, {}
        for each in of_branch.values():
            for part in each["by_distance"]:
                spans[part["up_to"]] = spans.get(part["up_to"], 0) + part["spans"]
                matched[part["up_to"]] = matched.get(part["up_to"], 0) + part["spans"] * part["exact_match"]
        return ", ".join(f"≤ {at}: {matched[at] / spans[at]:.1%}" for at in sorted(spans))

    def mass_table(self):
        lines = ["| model | layer | share of far keys | with softmax of the same queries and keys |",
                 "|---|---|---|---|"]
        for row, result in self.diagnosed():
            for layer in range(rows.LAYERS):
                of_layer = {seed: each["mass"][layer] for seed, each in result.items()}
                lines.append(f"| {row.name} | {layer} | {spread(column(of_layer, 'far'), '{:.1%}')} | "
                             f"{spread(column(of_layer, 'far_softmax'), '{:.1%}')} |")
        return lines

    def markdown(self, plots):
        lines = []
        for table in rows.TABLES:
            if not self.of_table(table):
                continue
            share = "" if table == "recipes" else f", {rows.ABLATION_SHARE:g} of the recipes' steps"
            lines += [f"## {TITLES[table]}{share}", "", *self.table(table), ""]
            if table == "recipes" and self.diagnosed():
                lines += ["### Which branch carries it", "", *self.branch_table(), "", *self.mass_table(), ""]
        return "\n".join(lines + [f"![{path.stem}]({path.name})" for path in plots]) + "\n"

    # --- Plots --------------------------------------------------------------------------------------------------

    def plot(self, path):
        """Perplexity and far recall over rank, window and k; each point the mean of the seeds, bars the deviation."""
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot

        tables = [table for table in ("rank", "window", "blocks") if self.of_table(table)]
        if not tables:
            return []
        figure, axes = pyplot.subplots(2, len(tables), figsize=(4 * len(tables), 6), squeeze=False)
        for i, table in enumerate(tables):
            for axis, name in zip(axes[:, i], ("perplexity", "recall")):
                self.draw(axis, table, name)
                axis.set_xlabel({"rank": "LoRA rank", "window": "window", "blocks": "layers in a block"}[table])
                axis.set_ylabel(name if i == 0 else "")
        for axis in axes[0]:
            axis.legend(fontsize=8)
        figure.tight_layout()
        with whole_file(path) as aside:
            figure.savefig(aside, format="png", dpi=110)
        pyplot.close(figure)
        return [path]

    def draw(self, axis, table, name):
        series = {}
        for row, result in self.of_table(table):
            values = column(result, name)
            label = "transfer" if row.adjust is None else "transfer + LoRA"
            series.setdefault(label, []).append(
                (row.place, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0))
        for label, points in series.items():
            axis.errorbar(*zip(*[point[:2] for point in points]), yerr=[point[2] for point in points], marker="o",
                          capsize=3, label=label, color=COLOURS[label])
        if self.teacher:
            axis.axhline(self.teacher[name], color="grey", linestyle=":", label="teacher")
        if table == "blocks":
            axis.set_xticks(sorted({x for points in series.values() for x, _, _ in points}))
        else:
            axis.set_xscale("log", base=2)


COLOURS = {"transfer": "C1", "transfer + LoRA": "C0"}
TITLES = {"recipes": "Recipes", "ingredients": "What robust is made of: one change each to the paper's recipe",
          "ablation": "Map, window and transfer (the paper's Tables 1 and 6)", "rank": "LoRA rank",
          "window": "Window", "blocks": "Layers in a block (the paper's Table 3)",
          "precision": "Type of the frozen weights"}


def write(results, out):
    report = Report(results)
    plots = report.plot(out / "quality.png")
    text = report.markdown(plots)
    with whole_file(out / "quality.md") as aside:
        aside.write_text(text, encoding="utf-8")
    return text
