"""Class names decide which class is which, in eval and in distillation; never their number or their order."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from shapes import TINY, draw_shapes

from zoo.cli import main
from zoo.data import DataError, open_held_out
from zoo.inference import Trained, evaluate_images, load_trained
from zoo.inference.class_names import known_names, match_classes
from zoo.release.publish import measure
from zoo.training.objective import make_objective
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.run_directory import Outcome
from zoo.training.start import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("run")
    recipe = replace(TINY, data=str(draw_shapes(folder / "photos")), epochs=8)
    return train(recipe, folder / "run")


@pytest.fixture
def renamed(run: Outcome, tmp_path: Path) -> Path:
    """The same two classes by names that sort the other way round."""
    photos = draw_shapes(tmp_path / "renamed", parts=["."], count=20, size=25)
    (photos / "disc").rename(photos / "a disc")
    (photos / "cross").rename(photos / "x")
    return photos


def test_names_that_the_model_does_not_know_are_refused(
    run: Outcome, renamed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Taken by their order, what is right would count as wrong: the figure that used to be printed."""
    capfd.readouterr()
    assert main(["eval", str(run.directory), str(renamed), "--workers", "0"]) == 2
    line = capfd.readouterr().err
    assert "the data's 2 classes are a disc, x, and local-dir:" in line and "knows 2: cross, disc, not 'a disc'" in line
    assert "name the class folders as" in line and "by --by-order" in line and line.count("\n") == 1
    assert main(["eval", str(run.directory), str(renamed), "--workers", "0", "--by-order", "--json"]) == 0
    by_order = json.loads(capfd.readouterr().out)["top1"]
    (renamed / "a disc").rename(renamed / "disc")
    (renamed / "x").rename(renamed / "cross")
    assert main(["eval", str(run.directory), str(renamed), "--workers", "0", "--json"]) == 0
    by_name = json.loads(capfd.readouterr().out)["top1"]
    assert by_name > 80 and by_order == pytest.approx(100 - by_name)


def test_publish_refuses_them_too(run: Outcome, renamed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="knows 2: cross, disc"):
        measure(run.directory, str(renamed), workers=0)
    assert measure(run.directory, str(renamed), workers=0, by_order=True)["n"] == 40
    assert main(["publish", str(run.directory), "--repo", "me/it", "--by-order", "--dry-run"]) == 2
    assert "--by-order says how to measure; give --measure DATA too" in capfd.readouterr().err


def test_a_model_without_names_is_taken_by_order_or_not_at_all(run: Outcome) -> None:
    trained = load_trained(str(run.directory))
    nameless = Trained(trained.source, trained.network, trained.config, ())
    images, classes, _ = open_held_out(str(run.directory.parent / "photos"))
    with pytest.raises(DataError, match=r"knows 2: classes whose names nobody wrote down; .*by --by-order"):
        evaluate_images(nameless, images, classes)
    assert evaluate_images(nameless, images, classes, by_order=True).top1 == run.score.top1


def test_matching() -> None:
    assert match_classes("ba", "abc", 3, "it", "stop") == [1, 0], "the data may have fewer"
    assert match_classes("xyz", "abc", 3, "it", "stop", by_order=True) == [0, 1, 2]
    for classes, by_order in (("abd", False), ("ab", True)):
        with pytest.raises(DataError, match=r"classes are a, b.* and it knows 3: a, b, c.*; stop"):
            match_classes(classes, "abc", 3, "it", "stop", by_order)
    wordnet = known_names({}, 1000)
    assert wordnet[:2] == ("n01440764", "n01443537") and known_names({}, 999) == ()
    assert match_classes(wordnet[::-1], wordnet, 1000, "it", "stop")[:2] == [999, 998]
    assert known_names({"label_names": {"10": "c", "9": "b", "1": "a"}}, 3) == ("a", "b", "c")


def test_a_teacher_goes_by_names(run: Outcome) -> None:
    """A teacher that knows the classes in another order says of each what it said before."""
    taught = Recipe(model="x", data="", teacher=str(run.directory), distill=1.0)
    pixels, cpu = {"mean": (0.5,) * 3, "std": (0.5,) * 3}, torch.device("cpu")
    logits, targets, images = torch.randn(4, 2), torch.rand(4, 2), torch.randn(4, 3, 16, 16)
    straight = make_objective(taught, pixels, ("cross", "disc"), cpu)(logits, targets, images)
    turned = make_objective(taught, pixels, ("disc", "cross"), cpu)(logits.flip(1), targets.flip(1), images)
    assert turned.item() == pytest.approx(straight.item())
    by_order = make_objective(replace(taught, by_order=True), pixels, ("disc", "ring"), cpu)(logits, targets, images)
    assert by_order.item() == pytest.approx(straight.item())
    opinion = load_trained(str(run.directory)).network
    mean, std = (torch.tensor(opinion.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    said = opinion((images * 0.5 + 0.5 - mean) / std).log_softmax(1)
    wanted = F.kl_div(logits.log_softmax(1), said, reduction="batchmean", log_target=True)
    assert straight.item() == pytest.approx(wanted.item(), rel=1e-4)
    with pytest.raises(DataError, match=r"are disc, ring, and the teacher .* knows 2: .*, not 'ring'; .*by_order"):
        make_objective(taught, pixels, ("disc", "ring"), cpu)
    with pytest.raises(RecipeError, match="knows 2 classes and the data has 3; fine-tune it on this data first"):
        make_objective(taught, pixels, ("cross", "disc", "ring"), cpu)
