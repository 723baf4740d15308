"""Run any script with the zoo's models registered: `python -m zoo.run train.py --model cbam_resnet50 ...`.

For timm's own scripts (train.py, validate.py, benchmark.py), which know only the models that something imported.
"""

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run the script named first on the command line, with the rest as its arguments."""
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        given = sys.argv[1] if len(sys.argv) > 1 else "nothing"
        print(f"python -m zoo.run takes a Python script and its arguments, and got {given}", file=sys.stderr)
        raise SystemExit(2)
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)  # as `python SCRIPT` would
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    import zoo  # noqa: F401

    main()
