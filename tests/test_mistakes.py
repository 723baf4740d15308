"""What a person does wrong on the command line: a line, an exit code, no traceback, and nothing left behind.

Each row is a command and a part of what it says. Mistakes with files of weights are in tests/test_convert.py and
tests/test_weights_files.py, those of repositories in tests/test_hostile_repositories.py and tests/test_download.py.
"""

import hashlib
import importlib
import json
import pkgutil
import shlex
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file
from shapes import TINY, draw_shapes, draw_volumes

import zoo
from zoo.cli import main
from zoo.errors import Interrupted, UserError
from zoo.training.recipe_file import dump_recipe
from zoo.training.start import train

RECIPE = """model = "cbam_resnet20_cifar"
data = "data"
epochs = 1
batch_size = 8
image_size = 16
workers = 0
device = "cpu"
"""


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """What damages a run: another config.json."""

    def damage(run: Path) -> None:
        path = run / "model" / "config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    return damage


def without_model(*files: tuple[str, bytes]) -> Callable[[Path], None]:
    """What damages a run: stopped before its end, with a checkpoint of these bytes under a valid hash."""

    def damage(run: Path) -> None:
        shutil.rmtree(run / "model")
        (run / "checkpoint").mkdir()
        for step, content in files:
            (run / "checkpoint" / f"{step}-{hashlib.sha256(content).hexdigest()[:16]}.pt").write_bytes(content)

    return damage


DAMAGED: dict[str, Callable[[Path], Any]] = {
    "no_json": lambda run: (run / "model" / "config.json").write_text("{"),
    "list": lambda run: (run / "model" / "config.json").write_text("[]"),
    "stranger": edited(lambda config: config.update(architecture="nosuch")),
    "arguments": edited(lambda config: config.update(model_args={"nosuch": 1})),
    "switches": edited(lambda config: config["model_args"]["attn_kwargs"].update(reduction=0)),
    "kernel": edited(lambda config: config["model_args"]["attn_kwargs"].update(kernel_size=3)),
    "size": edited(lambda config: config["pretrained_cfg"].update(input_size=[3, 0, 0])),
    "resize": edited(lambda config: config["pretrained_cfg"].update(interpolation="nosuch")),
    "cut": lambda run: (run / "model" / "model.safetensors").write_bytes(b"cut"),
    "gone": lambda run: (run / "model" / "model.safetensors").unlink(),
    "split": lambda run: (run / "split.csv").write_text("a,b\n1,2\n"),
    "recipe": lambda run: (run / "recipe.toml").write_text("x"),
    "stopped": without_model(),
    "garbage": without_model(("000000002", b"garbage")),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, recipes, a run, and the run in many states."""
    place = tmp_path_factory.mktemp("mistakes")
    draw_shapes(place / "data", count=10)
    draw_volumes(place / "scans", count=2, size=10)
    train(replace(TINY, data=str(place / "data"), epochs=1, warmup_epochs=0.0), place / "run")
    for name, damage in DAMAGED.items():
        shutil.copytree(place / "run", place / name)
        damage(place / name)
    (place / "r.toml").write_text(RECIPE)
    for name, content in (
        ("empty", b""),
        ("cut", b"model = "),
        ("latin", b'model = "\xe9"'),
        ("table", b"[x]\na = 1\n"),
    ):
        (place / f"{name}.toml").write_bytes(content)
    (place / "vit.toml").write_text(RECIPE.replace("cbam_resnet20_cifar", "test_vit"))
    picture = Image.new("RGB", (20, 20))
    for file in ("one/a/1.png", "two/a/1.png", "two/b/1.png", "mixed/a/1.png", "mixed/b/1.png", "pictures/1.png"):
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        picture.save(place / file)
    np.save(place / "mixed" / "b" / "2.npy", np.zeros((4, 4, 4), np.uint8))
    (place / "bad").mkdir()
    (place / "bad" / "1.png").write_text("no image")
    (place / "nothing").mkdir()
    (place / "text.txt").write_text("hello")
    for name, table in (("gone", "path,label\nnowhere.png,a"), ("rows", "path,label"), ("columns", "a,b\n1,2")):
        (place / f"{name}.csv").write_text(f"{table}\n")
    (place / "parts.csv").write_text("path,label,split\npictures/1.png,a,foo\n")
    np.savez(place / "arrays.npz", a=np.zeros(3))
    (place / "text.npz").write_text("x")
    (place / "link").symlink_to("link")
    for name in ("taken.pt2", "text.onnx"):
        (place / name).write_text("hello")
    with zipfile.ZipFile(place / "empty.pt2", "w") as archive:
        archive.writestr("x/data.txt", "hello")
    with zipfile.ZipFile(place / "pickled.pt2", "w") as archive:
        archive.writestr("x/data/weights/model_weights_config.json", '{"config": {"w": {"use_pickle": true}}}')
    if find_spec("onnx"):
        write_other_onnx(place / "other.onnx")
    network = timm.create_model("resnet20_cifar", num_classes=2)
    save_file(network.state_dict(), place / "plain.safetensors")
    return place


def write_other_onnx(path: Path) -> None:
    """An ONNX file of something else: it returns what it is given."""
    from onnx import TensorProto, helper, save

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", [x], [y])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def tree(place: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder; of a file its size and when it was written."""
    found = ((path, path.lstat()) for path in place.rglob("*"))
    return {str(path): (0, 0) if path.is_dir() else (stat.st_size, stat.st_mtime_ns) for path, stat in found}


def rows(table: str) -> list[Any]:
    """`command | what it says`, a line each."""
    lines = [line.partition(" | ") for line in table.splitlines() if line]
    return [pytest.param(command.strip(), says, id=command.strip()) for command, _, says in lines]


RECIPES = """
--set lr=nan | lr must be a finite number, not nan
--set lr=-1 | lr must be at least 0, not -1
--set optimizer=adamx | unknown optimizer 'adamx'; adamax, adam
--set optimizer=adahessian | optimizer 'adahessian' takes second derivatives, which no run makes; take another
--set optimizer=fusedsgd | optimizer 'fusedsgd' cannot be used here: AssertionError: CUDA required
--set 'freeze=["conv1","bn1","layer","fc"]' | leaves nothing of cbam_resnet20_cifar to train; leave some out
--set 'freeze=["nothing"]' | no parameter of cbam_resnet20_cifar begins with 'nothing'; they begin with conv1, bn1
--set 'freeze=["fc"]' --set head_epochs=1 --set model=resnet20_cifar | head_epochs trains head and gates alone
--set model=cbam_resnet110_cifar.nosuch | has no weights of the tag 'nosuch'; nobody has published any
--set model=resnet18.nosuch | resnet18 has no weights of the tag 'nosuch'; its tags are a1_in1k, a2_in1k
--set model=cbam_resnet20 | unknown model 'cbam_resnet20'; did you mean
--set model= | unknown model ''; give a name of `zoo list`
--set model=bogus:x | Unknown model source 'bogus'
--set model=local-dir:nowhere | there is no config.json, so it is no model folder
--set model=hacnn --set pretrained=true | hacnn has no weights to start from; set weights to a file, a run
--set 'model_kwargs={in_chans=1}' | takes 1 channels with in_chans = 1, and images are read in 3 colours
--set 'model_kwargs={num_classes=3}' | model_kwargs cannot hold num_classes: the data says how many there are
--set 'model_kwargs={features_only=true}' | model_kwargs cannot hold features_only: a run trains a classifier
--set 'model_kwargs={checkpoint_path="x"}' | model_kwargs cannot hold checkpoint_path: weights is the field
--set 'model_kwargs={nosuch=3}' | cannot be built with nosuch = 3:
--set 'model_kwargs={global_pool="nosuch"}' | cannot be built with global_pool = 'nosuch': AssertionError: Invalid pool
--set 'model_kwargs={act_layer="nosuch"}' | cannot be built with act_layer = 'nosuch': KeyError: 'nosuch'
--set 'attn_kwargs={reduction=0}' | reduction must be a whole number of at least 1, not 0; the papers use 16
--set 'attn_kwargs={kernel_size=4}' | kernel_size must be an odd whole number such as 3, 5 or 7, not 4
--set 'attn_kwargs={neutral="no"}' | attn_kwargs takes neutral=True or neutral=False, not 'no'
--set 'attn_kwargs={nosuch=1}' | attn_kwargs has an unknown key 'nosuch'; CBAM takes reduction=16, kernel_size=7
--set model=resnet20_cifar --set 'attn_kwargs={reduction=8}' | resnet20_cifar has no attention, so attn_kwargs
--set model=test_vit --set image_size=33 | test_vit cannot take images of 33x33 pixels: .* its own size is 160x160
--set model=test_vit --set start_size=17 --set image_size=64 | test_vit cannot take images of 17x17 pixels
--set image_size=100000 | a size of 100000x100000 is more than the 134 million places that the zoo takes
--set image_size=-1 | image_size must be a side, [H, W] or [D, H, W], not -1
--set 'image_size=[16,16,16]' | must be a side or [H, W], as it takes images, not [16, 16, 16]
--set start_size=64 | start_size 64 must not be above image_size 16
--set 'mean=[0.5]' | mean [0.5] and std [] must both have a number a channel
--set data= | there is no data ''; give digits, planted, a folder of class folders
--set data=nowhere | there is no data 'nowhere'; give digits
--set data=hfds/ | there is no data 'hfds/'
--set data=frames/nowhere | there is no data 'frames/nowhere'
--set data=wds/nowhere | there is no folder nowhere of shards, which wds/nowhere names
--set data=torch/cifar10 | torch/cifar10 takes the folder that holds it: torch/cifar10@FOLDER
--set data=torch/nosuch@data | cannot open torch/nosuch@data: Unknown torchvision dataset nosuch
--set 'data=data#label' | names columns, and data has none: #label is for tables and parquet files
--set data=scans | scans holds volumes and cbam_resnet20_cifar takes images; take cbam_resnet18_volume
--set data=one | one has one class only, 'a'; to tell classes apart takes at least two
--set data=two | is too few to split for a, b; add images or a val/ folder
--set num_classes=5 | num_classes is 5, and data has 2 classes (cross, disc); leave it out, since the data says it
--set weights=nowhere.pt | there is no file of weights nowhere.pt, no run and no model folder
--set weights=plain.safetensors --set model=cbam_resnet18 | these weights fit neither cbam_resnet18 nor its plain
--set weights=no_json | config.json of no_json is not what timm writes: it is no JSON
--set new_head=true | new_head leaves out the head of trained weights; set pretrained or weights, too
--set by_order=true | by_order is about trained weights or a teacher; set pretrained, weights or teacher, too
--set standardize_logits=true | standardize_logits is about a teacher's logits; set teacher, too
--set teacher=nowhere | unknown model 'nowhere'; give a name of `zoo list`
--set teacher=resnet110_cifar | resnet110_cifar has no weights yet; give a run directory
--set epochs=0 | epochs must be at least 1, not 0
--set epochs=abc | epochs must be a whole number, not 'abc'
--set batch_size=4096 | batch_size 4096 is more than the 20 training images; lower it
--set batch_size=1 --set model=resnet18 | resnet18 cannot learn from batches of one at 16x16 pixels
--set accumulate=3 | batch_size 8 must be a multiple of accumulate 3
--set warmup_epochs=5 | warmup_epochs 5.0 must be below epochs 1
--set min_lr=1 | min_lr 1.0 must not be above lr 0.001
--set ema_decay=1 | ema_decay must be at least 0 and below 1, where
--set branch_loss=true | has no branches with logits of their own; leave branch_loss out
--set crop_padding=4 --set loader=device | loader device cannot do this: .*; take loader = 'host'
--set dflip=0.5 | dflip turns volumes around, and these are images; set it to 0
--set auto_augment=nosuch | auto_augment 'nosuch' is nothing that timm knows .*; rand-m9-mstd0.5
--set workers=1000 | 1000 workers are more than
--set amp=fp8 | unknown amp 'fp8'; choices are off, bf16, fp16
--set schedule=poly | unknown schedule 'poly'; choices are cosine, one-cycle, step, wsd, constant
--set device=gpu | device 'gpu' cannot be used here; here
--set device=meta | device 'meta' cannot be used here; here
--set epohcs=1 | unknown key 'epohcs'; did you mean 'epochs'?
--set epochs | --set takes key=value, not 'epochs'
"""


@pytest.mark.parametrize(("options", "says"), rows(RECIPES))
def test_recipes(options: str, says: str, zoo_says: Callable[[str], str]) -> None:
    assert_says(zoo_says(f"train r.toml --out x {options}"), says)


TRAINING = """
train | zoo train takes a recipe, or --resume RUN, and one of them
train quickstart --resume run | zoo train takes a recipe, or --resume RUN, and one of them
train quickstrat | cannot read the recipe quickstrat: there is no such file; did you mean the zoo's own 'quickstart'?
train nothing | cannot read the recipe nothing: there is no such file; the zoo's own are
train empty.toml | empty.toml: 'model' is missing; a recipe needs model and data
train cut.toml | cut.toml is not valid TOML: Invalid value
train latin.toml | latin.toml is not valid TOML: 'utf-8' codec can't decode
train table.toml | table.toml: unknown key 'x'; keys are model, data
train r.toml --out run | run is there already; give another directory with --out, remove it, or go on
train r.toml --out text.txt | text.txt is there already
train r.toml --out text.txt/x | cannot make text.txt/x: Not a directory; give another directory with --out
train r.toml --out link | cannot make link: File exists; give another directory with --out
train --resume nowhere | nowhere holds no run to resume; start one with zoo train RECIPE --out nowhere
train --resume run --out y | --out is for a new run; --resume goes on in run
train --resume run --set epochs=3 | run is complete already: its model is in run/model
train --resume recipe | recipe/recipe.toml is not valid TOML
train --resume stopped --set model=resnet18 | a run cannot go on with another model ("cbam_resnet20_cifar" before)
train --resume garbage | .pt is no checkpoint of this run; remove it, and the run goes on from the one before it
finetune nosuch data | unknown model 'nosuch'
finetune cbam_resnet110_cifar data | has no weights to start from; set weights to a file, a run .*--weights
finetune cbam_resnet18.nosuch data | cbam_resnet18 has no weights of the tag 'nosuch'; its tags are warm_a1_in1k
finetune resnet20_cifar data --weights plain.safetensors --epochs 0 | epochs must be at least 1, not 0; without --epochs
finetune resnet20_cifar data --weights plain.safetensors --epochs 1 --set epochs=2 | epochs is given twice, as 1 and
finetune resnet20_cifar data --weights plain.safetensors --set model=x | model is given twice
finetune resnet20_cifar data --weights plain.safetensors --set patience=x | patience must be a whole number, not 'x'
finetune resnet20_cifar data --weights nowhere --epochs 1 | there is no file of weights nowhere, no run and no model
finetune resnet20_cifar nowhere --weights plain.safetensors | there is no data 'nowhere'
finetune resnet20_cifar mixed --weights plain.safetensors | mixed holds images and volumes; keep them in folders
finetune local-dir:nowhere data --epochs 1 | there is no config.json, so it is no model folder
"""
DATA = """
check-data "" | there is no data ''
check-data nothing | nothing holds no images in class folders, such as nothing/cat/1.jpg
check-data one | one has one class only, 'a'
check-data gone.csv | gone.csv names nowhere.png, which is not there
check-data rows.csv | rows.csv has no rows; its first line names the columns
check-data columns.csv | has the columns a, b; say which hold the image and the label by #IMAGE,LABEL
check-data parts.csv | parts.csv, line 2: unknown split 'foo'; choices are train
check-data arrays.npz | arrays.npz holds the arrays a; train_images, train_labels
check-data text.npz | cannot read text.npz
check-data pictures/1.png | is no CSV file in UTF-8; a table of paths and labels is wanted
check-data text.txt | text.txt has no rows
check-data link | there is no data 'link'
"""
INFERENCE = """
eval nosuch data | unknown model 'nosuch'; give a name of `zoo list`
eval "" data | is no run and no model folder
eval hf-hub: data | names no model
eval some/where digits | a repository on the Hub is hf-hub:some/where
eval text.txt data | text.txt is a file, and weights alone do not say of which network they are; give a run
eval resnet110_cifar data | resnet110_cifar has no weights yet
eval resnet18.nosuch data | resnet18 has no weights of the tag 'nosuch'
eval stopped data | stopped is no run and no model folder
eval run nowhere | there is no data 'nowhere'
eval run data --part test | data 'data' has no part 'test'; it has train, val, and all takes every image
eval run two | the data's 2 classes are a, b, and .* knows 2: cross, disc, not 'a'; .*--by-order
eval run scans | the data holds volumes and .* takes images; give others
eval run data --csv text.txt | text.txt has other columns than model,top1
eval run data --csv pictures/1.png | pictures/1.png has other columns than model,top1
eval run data --csv nothing | cannot write nothing: it is a folder
eval run data --csv nowhere/x.csv | cannot write nowhere/x.csv: there is no nowhere
eval run data --device gpu | device 'gpu' cannot be used here; here
eval run data --image-size 8x8x8 | a size for run is a side or [H, W], as it takes images, not [8, 8, 8]
eval run data --image-size 1000000 | is more than the 134 million places that the zoo takes
eval no_json data | is not what timm writes: it is no JSON
eval list data | is not what timm writes
eval stranger data | names the model 'nosuch', which neither timm nor the zoo has
eval arguments data | does not load: .*unexpected keyword argument 'nosuch'
eval switches data | does not load: reduction must be a whole number of at least 1, not 0
eval kernel data | does not load: these weights fit neither cbam_resnet20_cifar nor its plain backbone
eval size data | asks for an input of 3 x 0 x 0
eval resize data | has the interpolation 'nosuch'; timm knows bicubic, bilinear
eval cut data | are damaged (.*); copy or train them again
eval gone data | has no weights: there is no model.safetensors in it
eval split data | split/split.csv is not what a run writes (KeyError('path')); put it back as it was
predict run nowhere | there is no file or folder nowhere
predict run "" | there is no file or folder of no name
predict run nothing | there are no images in nothing
predict run link | there is no file or folder link
predict resize pictures | has the interpolation 'nosuch'; timm knows bicubic, bilinear
predict run pictures --image-size 1x1x1 | a size for run is a side or [H, W]
explain run nowhere --out e | there is no file or folder nowhere
explain run pictures --out run | run is there already; give another folder
explain nosuch pictures --out e | unknown model 'nosuch'
"""
WEIGHTS = """
list nosuch | no model of the zoo matches 'nosuch'; `zoo list` prints all
verify nosuch | unknown model 'nosuch'; give a name of `zoo list`
verify resnet110_cifar | resnet110_cifar has no weights
verify no_json | is not what timm writes
verify cut | cut/model/model.safetensors is no whole safetensors file
verify gone | has no model.safetensors
verify arguments | does not load: .*unexpected keyword argument 'nosuch'
convert nowhere --from timm --model resnet18 --out c.safetensors | nowhere is not there
convert plain.safetensors --from nosuch --model resnet18 --out c.safetensors | unknown source 'nosuch'; choices
convert plain.safetensors --from timm --model nosuch --out c.safetensors | unknown model 'nosuch'
convert plain.safetensors --from timm --model resnet18.nosuch --out c.safetensors | has no weights of the tag 'nosuch'
convert plain.safetensors --from timm --model cbam_resnet18 --out c.safetensors | is no cbam_resnet18 of timm
convert plain.safetensors --from timm --model resnet18 --out plain.safetensors | plain.safetensors is there already
convert plain.safetensors --from timm --model resnet18 --out run | run is there already; give another path with --out
convert plain.safetensors --from timm --model resnet18 --out text.txt/c | cannot write text.txt/c: text.txt is a file
convert plain.safetensors --from timm --model resnet18 --out c --tag ../x | --tag '../x' is no tag of weights
"""
RELEASES = """
publish --repo me/x | give a run or a model folder, or --all
publish run --repo me/x --all | give a run or a model folder, or --all
publish run --repo x --dry-run | --repo takes ORG/NAME, not 'x'; ORG is your user name or an organisation
publish run --repo me/x --tag 'a b' --dry-run | --tag 'a b' is no name of a tag or branch, such as v1 or main
publish run --repo me/x --license 'MIT License' --dry-run | --license takes a name as the Hub has it, such as mit
publish run --repo me/x --seeds nowhere --dry-run | nowhere is no run and no model folder
publish run --repo me/x --baseline run --dry-run | the baseline is cbam_resnet20_cifar
publish run --repo me/x --measure nowhere --dry-run | there is no data 'nowhere'
publish run --repo me/x --part val --dry-run | --part says how to measure; give --measure DATA too
publish run --repo me/x --create-pr --tag v1 | --create-pr proposes a change to main
publish run --repo me/x --create-pr --space | --create-pr proposes a change to main: .*--space, after it is merged
publish --all --repo me --space | --space is for one run; --all takes what the manifest says
publish --all --repo me --dry-run | --dry-run is for one run; --all takes what the manifest says
publish nowhere --repo me/x --dry-run | nowhere is no run and no model folder
publish no_json --repo me/x --dry-run | is not what timm writes
publish arguments --repo me/x --dry-run | can be built with model_args = .*unexpected keyword argument 'nosuch'
publish switches --repo me/x --dry-run | reduction must be a whole number of at least 1, not 0
publish cut --repo me/x --dry-run | is no whole safetensors file
publish gone --repo me/x --dry-run | has no model.safetensors
publish recipe --repo me/x --dry-run | recipe.toml is not valid TOML
"""
BENCH = """
bench nosuch | unknown model 'nosuch'; give a name of `zoo list`
bench cbam_resnet20_cifar --against nosuch | cannot time against 'nosuch'; choices are plain, timm, timm:NAME, pytorchcv
bench cbam_resnet20_cifar --against timm:resnet0 | unknown model 'resnet0'; did you mean
bench cbam_resnet20_cifar --against pytorchcv | pytorchcv has no network 'cbam_resnet20_cifar'; did you mean .*Give
bench cbam_resnet20_cifar --against plain,plain | would be timed against itself or a network twice; name each once
bench resnet20_cifar --against plain | resnet20_cifar is no model of the zoo with attention, so there is no plain
bench bam_resnet18_cifar --against timm --rounds 1 | timm has no BAM for these maps; it has SE, CBAM and ECA for images
bench cbam_resnet20_cifar --fuse --train | a fused network cannot be trained; leave out --fuse or --train
bench cbam_resnet20_cifar --image-size 8x8x8 | --image-size takes 2 sides here, such as 32x32, not 8x8x8
bench test_vit --image-size 7 --batch 1 --rounds 1 | test_vit and what stands beside it do not run at 7x7: Assertion
bench cbam_resnet20_cifar --device gpu | device 'gpu' cannot be used here; here
bench cbam_resnet20_cifar --out text.txt | text.txt has other columns than model,network,form,beside ...; give another
bench cbam_resnet20_cifar --out nowhere/b.csv | cannot write nowhere/b.csv: there is no nowhere
bench cbam_resnet20_cifar --chart b.bmp | a chart is written as .png, .svg, .pdf, not 'b.bmp'
"""


EXPORTS = """
export nosuch --out e.onnx | unknown model 'nosuch'
export run --out e.bin | --out e.bin must end in .onnx, by which it is read again; give e.onnx
export run --out e.onnx --format pt2 | --out e.onnx must end in .pt2
export run --out nowhere/e.pt2 | cannot write nowhere/e.pt2: the folder nowhere is not there
export run --out text.txt/e.pt2 | cannot write text.txt/e.pt2: the folder text.txt is a file
export run --out /proc/e.pt2 | cannot write /proc/e.pt2:
export run --out taken.pt2 | taken.pt2 is there already; give another file with --out
export stopped --out e.pt2 | stopped is no run and no model folder
export cut --out e.pt2 | are damaged
export taken.pt2 --out e.pt2 | taken.pt2 is no .pt2 file of torch.export
export run --out e.pt2 --int8 pictures | --int8 quantises ONNX files
export run --out e.pt2 --part val | --part says how to measure; give --data DATA too
export run --out e.pt2 --data nowhere | there is no data 'nowhere'
export run --out e.pt2 --image-size 8x8x8 | a size for run is a side or [H, W]
eval taken.pt2 data | taken.pt2 is no .pt2 file of torch.export
eval gone.pt2 data | there is no file gone.pt2; zoo export MODEL --out gone.pt2 writes one
predict empty.pt2 pictures | empty.pt2 was not written by zoo export
predict pickled.pt2 pictures | pickled.pt2 holds pickled objects, which can run anything when read
predict gone.onnx pictures | there is no file gone.onnx
explain empty.pt2 pictures --out e | empty.pt2 was not written by zoo export
"""
NEED_ONNX = """
export run --out e.onnx --aoti | --aoti makes a .pt2 file
export run --out e.onnx --int8 nowhere | --int8 takes a folder of pictures to calibrate on, and nowhere is none
predict text.onnx pictures | text.onnx is no ONNX file that ONNX Runtime can run
eval other.onnx data | other.onnx was not written by zoo export: it does not say its input and its classes
"""
NEED_GRADIO = """
demo nosuch | unknown model 'nosuch'
demo stopped | stopped is no run and no model folder
"""


@pytest.mark.skipif(not find_spec("onnxscript"), reason="ONNX is not installed")
@pytest.mark.parametrize(("command", "says"), rows(NEED_ONNX))
def test_onnx(command: str, says: str, zoo_says: Callable[[str], str]) -> None:
    assert_says(zoo_says(command), says)


@pytest.mark.skipif(not find_spec("gradio"), reason="Gradio is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("command", "says"), rows(NEED_GRADIO))
def test_demo(command: str, says: str, zoo_says: Callable[[str], str]) -> None:
    assert_says(zoo_says(command), says)


@pytest.mark.parametrize(("command", "says"), rows(TRAINING + DATA + INFERENCE + EXPORTS + WEIGHTS + RELEASES + BENCH))
def test_commands(command: str, says: str, zoo_says: Callable[[str], str]) -> None:
    out = " --out x" if command.startswith("finetune") else ""
    assert_says(zoo_says(command + out), says)


USAGE = """
trian | No such command 'trian'
train r.toml extra | Got unexpected extra argument (extra)
train r.toml --oot x | No such option '--oot'
finetune cbam_resnet18 | Missing argument 'DATA'
finetune cbam_resnet18 data --epochs x | 'x' is not a valid integer
eval run data --part some | 'some' is not one of 'train', 'val', 'test', 'all'
eval run data --batch-size 0 | 0 is not in the range x>=1
eval run data --workers -1 | -1 is not in the range x>=0
eval run data --amp fp8 | 'fp8' is not one of 'off', 'bf16', 'fp16'
eval run data --image-size 0 | '0' is no size; 224, 256x128 (height, width)
eval run data --image-size big | 'big' is no size
predict run | Missing argument 'IMAGES...'
predict run pictures --top-k -1 | -1 is not in the range x>=1
predict run pictures --top-k x | 'x' is not a valid integer
explain run pictures | Missing option '--out'
convert plain.safetensors | Missing option '--from'
publish run | Missing option '--repo'
publish run --repo me/x --seeds --dry-run | --seeds takes a run at least
recipe extra | Got unexpected extra argument (extra)
check-data | Missing argument 'DATA'
bench | Missing argument 'MODEL...'
bench cbam_resnet20_cifar --batch 0 | 0 is not in the range x>=1
bench cbam_resnet20_cifar --dtype fp8 | 'fp8' is not one of 'fp32', 'bf16', 'fp16'
"""


@pytest.mark.parametrize(("command", "says"), rows(USAGE))
def test_usage(
    command: str, says: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(command))
    said = capfd.readouterr().err
    assert stop.value.code == 2 and says in said and "--help" in said and "Traceback" not in said


@pytest.fixture
def zoo_says(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Runs a command that is wrong; the one line that it says, after it has left nothing behind."""
    monkeypatch.chdir(place)

    def say(command: str) -> str:
        before = tree(place)
        assert main(shlex.split(command)) == 2
        out, err = capfd.readouterr()
        *told, line = err.splitlines()
        assert tree(place) == before and not out
        assert not [each for each in told if each.startswith(("zoo:", "Traceback"))], err
        return line

    return say


def assert_says(line: str, says: str) -> None:
    """`says` is in the line; `.*` in it stands for anything."""
    assert line.startswith("zoo: ") and line.isprintable()
    place = 0
    for part in says.split(".*"):
        assert part in line[place:], line
        place = line.index(part, place) + len(part)


def test_files_that_cannot_be_read_are_named_one_by_one(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert main(["predict", "run", "bad", "text.txt"]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines[:2]] == [
        "cannot read the image bad/1.png",
        "cannot read the image text.txt",
    ]
    assert lines[2:] == ["zoo: none of 2 files can be read by it"]


def test_a_working_directory_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code = main(["train", "quickstart"])
    monkeypatch.chdir(tmp_path)
    assert (
        code == 2
        and "the directory that this was started in is gone; change to one that is there" in capfd.readouterr().err
    )


def test_a_vision_transformer_learns_at_another_size(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = replace(TINY, model="test_vit", image_size=32, batch_size=4, epochs=1, warmup_epochs=0.0)
    (tmp_path / "vit.toml").write_text(dump_recipe(replace(recipe, data=str(draw_shapes(tmp_path / "data", count=4)))))
    assert main(["train", str(tmp_path / "vit.toml"), "--out", str(tmp_path / "run")]) == 0
    says = capfd.readouterr().out.partition("\ntop-1 ")[2].partition(",")[0]
    evaluate = ["eval", str(tmp_path / "run"), str(tmp_path / "data"), "--workers", "0", "--device", "cpu"]
    assert main(evaluate) == 0
    assert capfd.readouterr().out.startswith(f"top-1 {says},")
    assert main([*evaluate, "--image-size", "48"]) == 0


def test_every_error_of_the_zoo_is_a_users_or_none_that_reaches_the_command_line() -> None:
    """So that a new one is not taken for a defect."""
    inner = {"Fault", "NotFinite", Interrupted.__name__}
    for module in pkgutil.walk_packages(zoo.__path__, "zoo."):
        if module.name.endswith("__main__"):
            continue
        for name, found in vars(importlib.import_module(module.name)).items():
            if isinstance(found, type) and issubclass(found, Exception) and found.__module__ == module.name:
                assert issubclass(found, UserError) or name in inner, f"{module.name}.{name}"


def test_there_are_enough() -> None:
    assert sum(len(rows(table)) for table in (RECIPES, TRAINING, DATA, INFERENCE, WEIGHTS, RELEASES, USAGE)) >= 120
