"""Do the gates of a network point at the evidence? On planted images, where it is known (zoo/explain/pointing.py).

zoo train planted
python scripts/planted.py runs/planted [--pictures 50]
"""

import argparse
from typing import Any

from timm.data import create_transform

import zoo  # noqa: F401
from zoo.data.planted import draw_planted
from zoo.explain.faithfulness import Faithfulness
from zoo.explain.pointing import pointing_game
from zoo.inference import load_trained


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--pictures", type=int, default=50, help="for deletion and insertion")
    options = parser.parse_args()
    trained = load_trained(options.run)
    for name, share in pointing_game(trained).items():
        print(f"{name:9} peaks at the shape in {100 * share:.1f} % of 200 images")
    transform: Any = create_transform(**trained.config)
    measured = Faithfulness(trained.network)
    for planted in draw_planted(options.pictures, seed=1):
        measured.add(transform(planted.image)[None])
    print(measured.text())


if __name__ == "__main__":
    main()
