"""What the comparison of quality computes: one row of a table is a way to make a model of the tiny teacher.

Options are those of the programs. A row's stage 1 and stage 2 are run once for all rows that share their options.
"""

from dataclasses import dataclass, field

# As tools/tiny/lolcats.toml, which tools/quickstart.sh runs, but for `shuffle`: a seed is one of maps, adapters and
# order.
COMMON = {"recipe": "paper", "feature-map": "hedgehog", "attention": "terrace", "window": 16, "feature-dim": 32,
          "batch-size": 8, "micro-batch": 8, "validation": 32, "shuffle": True, "log-every": 100}
TRANSFER = {"block-layers": 2, "steps": 600}
ADJUST = {"steps": 300, "lr": 1e-3, "lora-rank": 8, "lora-alpha": 16}
# Recipes have the steps that tools/quickstart.sh runs, rows of other tables half of them: enough to tell them apart,
# and all tables take hours, not a day.
ABLATION_SHARE = 0.5
# Two layers that are next to each other, or all four, make up a block of the tiny teacher.
LAYERS = 4
BRANCHES = ("both", "window", "linear", "window+sinks")


@dataclass(frozen=True)
class Row:
    """`transfer` and `adjust` are options beside the common ones; None leaves the stage out."""
    table: str
    name: str
    form: dict = field(default_factory=dict)  # of the student: given to every stage
    transfer: dict | None = None
    adjust: dict | None = None
    late: float | None = None  # share of a stage's steps, the last ones, on whole sequences; before, on halves
    diagnosed: bool = False  # evaluated branch by branch as well
    place: float | None = None  # on the axis of the table's plot

    @property
    def key(self):
        return f"{self.table}/{self.name}"

    @property
    def share(self):
        """Of TRANSFER's and ADJUST's steps."""
        return 1 if self.table == "recipes" else ABLATION_SHARE


ROBUST = {"recipe": "robust"}


def recipe_rows():
    return [
        Row("recipes", "teacher", form={"attention": "teacher"}),
        Row("recipes", "swap only"),
        Row("recipes", "transfer only", transfer={}),
        Row("recipes", "swap + LoRA, no transfer", adjust={}),
        Row("recipes", "paper: transfer + LoRA", transfer={}, adjust={}, diagnosed=True),
        Row("recipes", "robust, transfer only", transfer=ROBUST),
        Row("recipes", "robust", transfer=ROBUST, adjust=ROBUST, diagnosed=True),
    ]


def ablation_rows():
    """The paper's Tables 1 and 6: map x window x transfer, before and after LoRA."""
    rows = []
    for feature_map, title in (("hedgehog", "Hedgehog"), ("t2r", "T2R")):
        for attention, window in (("none", "no window"), ("terrace", "window")):
            form = {"feature-map": feature_map, "attention": attention}
            if feature_map == "t2r":
                form["feature-dim"] = 0  # its maps are square
            for steps, transfer, adjust in (("swap", None, None), ("transfer", {}, None), ("swap + LoRA", None, {}),
                                            ("transfer + LoRA", {}, {})):
                rows.append(Row("ablation", f"{title}, {window}, {steps}", form, transfer, adjust))
    return rows


def rank_rows():
    """alpha / r stays what it is in the paper, 2. More than the teacher's width of 128 would not be low."""
    return [Row("rank", f"r = {rank}", transfer={}, adjust={"lora-rank": rank, "lora-alpha": 2 * rank}, place=rank)
            for rank in (1, 4, 8, 16, 64, 128)]


def window_rows():
    """With 128 and more, two windows hold all 256 tokens: the student is the teacher."""
    return [Row("window", f"w = {window}, {name}", {"window": window}, {}, adjust, place=window)
            for window in (4, 8, 16, 32, 64) for name, adjust in (("transfer", None), ("transfer + LoRA", {}))]


def block_rows():
    return [Row("blocks", f"k = {k}" + (" (joint)" if k == LAYERS else ""), transfer={"block-layers": k}, adjust={},
                place=k) for k in (1, 2, 3, LAYERS)]


def precision_rows():
    """Frozen weights in 8 bits, and what they are multiplied with."""
    rows = []
    for name, form in (("bf16 weights", {}), ("8-bit weights", {"dtype": "fp8"}),
                       ("8-bit weights and activations", {"dtype": "fp8", "gemm": "fp8"})):
        rows += [Row("precision", f"{name}, teacher", {"attention": "teacher", **form}),
                 Row("precision", f"{name}, transfer", form, {}),
                 Row("precision", f"{name}, transfer + LoRA", form, {}, {})]
    return rows


# What the robust recipe is made of, each on top of the paper's. Table, name, stage 1, stage 2.
INGREDIENTS = (
    ("the paper's recipe", {}, {}),
    ("far cross-entropy in stage 1", {"far-xent-factor": 1}, {}),
    ("whole cross-entropy in stage 1", {"xent-factor": 1}, {}),
    ("window dropout 0.5, both stages", {"window-dropout": 0.5}, {"window-dropout": 0.5}),
    ("window size dropout 0.5, both stages",
     *2 * ({"window-dropout": 0.5, "window-dropout-kind": "size"},)),
    ("normalized layer losses", {"layer-loss": "normalized"}, {}),
    ("maps trained on in stage 2", {}, {"train-feature-maps": True}),
    ("divergence from the teacher in stage 2", {}, {"kl-factor": 1}),
    ("maps and divergence in stage 2", {}, {"train-feature-maps": True, "kl-factor": 1}),
    ("one layer keeps softmax", {}, {"keep-softmax-layers": 1}),
)


def ingredient_rows():
    rows = [Row("ingredients", name, transfer=transfer, adjust=adjust) for name, transfer, adjust in INGREDIENTS]
    return [*rows, Row("ingredients", "T = 128, the last fifth T = 256, both stages", transfer={}, adjust={}, late=0.2)]


TABLES = {"recipes": recipe_rows, "ingredients": ingredient_rows, "ablation": ablation_rows, "rank": rank_rows,
          "window": window_rows, "blocks": block_rows, "precision": precision_rows}


def rows_of(tables):
    return [row for table in tables for row in TABLES[table]()]
