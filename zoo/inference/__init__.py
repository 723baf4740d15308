"""A trained model by one string; evaluate and predict with it."""

from zoo.inference.confusions import Confusions, confusions
from zoo.inference.evaluation import Score, evaluate, evaluate_images, matched_batches
from zoo.inference.held_out import open_part
from zoo.inference.prediction import Prediction, find_inputs, predict
from zoo.inference.trained import Trained, load_trained

__all__ = [
    "Confusions",
    "Prediction",
    "Score",
    "Trained",
    "confusions",
    "evaluate",
    "evaluate_images",
    "find_inputs",
    "load_trained",
    "matched_batches",
    "open_part",
    "predict",
]
