"""Write the table of models into README.md, between its two markers: `python scripts/model_table.py` (20 seconds).

With `--check` nothing is written, and the exit code is 1 if the table is out of date.
"""

import sys
from pathlib import Path

import timm

from zoo.catalog import BACKBONES, VARIANTS
from zoo.count import cost

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- models: python scripts/model_table.py -->", "<!-- /models -->"
COLUMNS = ("plain", "se", "cbam", "bam")


def cell(name: str) -> str:
    """Parameters in millions and multiply-accumulates in billions."""
    params, multiply_accumulates = cost(name)
    return f"{params / 1e6:.3f} / {multiply_accumulates / 1e9:.4f}"


def table() -> str:
    """A row a backbone, a column an attention."""
    names = {variant.name for variant in VARIANTS}
    lines = ["| backbone | plain | `se_` | `cbam_` | `bam_` | warm start from |", "|---|---|---|---|---|---|"]
    for backbone, row in BACKBONES.items():
        cells = [backbone] + [f"{attention}_{backbone}" for attention in COLUMNS[1:]]
        shown = [cell(name) if name in names or timm.is_model(name) else "-" for name in cells]
        source = f"`timm/{backbone}.{row.tag}`" if row.tag else "your own file"
        lines.append(f"| `{backbone}` | {' | '.join(shown)} | {source} |")
    return "\n".join(lines)


def main() -> int:
    """Write or check."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    new = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if "--check" in sys.argv:
        return int(new != text)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
