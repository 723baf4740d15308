"""Attention attached to networks of many families: does anything change, does it learn, do plain weights still load?

    python scripts/attach_matrix.py

Each network has random weights, with norms and layer scales as trained networks have them, so that every branch
counts. It runs on two images, plain and with gates behind its stages, in eval and in train mode; then two steps are
trained, and the plain network's weights are loaded into it. It writes scripts/attach_matrix.csv, and leaves out what
is there already.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import timm
import torch
from measured import read_rows, require_like, write_rows
from torch import Tensor, nn

import zoo

ATTENTIONS = ("se", "cbam", "bam")
NETWORKS = (
    *("resnet18", "resnet26d", "seresnext26t_32x4d", "skresnet18", "res2net50_26w_4s", "resnest14d", "resnetv2_50"),
    *("regnetx_002", "regnety_002", "nf_regnet_b0", "repvgg_a0", "mobileone_s0", "vgg11_bn", "densenet121", "dla46_c"),
    *("efficientnet_b0", "efficientnetv2_rw_t", "tf_efficientnet_lite0", "mobilenetv1_100", "mobilenetv2_100"),
    *("mobilenetv3_small_100", "mobilenetv4_conv_small", "lcnet_050", "mnasnet_small", "ghostnet_050", "rexnet_100"),
    *("convnext_atto", "convnextv2_atto", "inception_next_tiny", "cspresnet50", "ese_vovnet19b_slim", "hgnetv2_b0"),
    *("swin_tiny_patch4_window7_224", "mambaout_femto", "mobilevit_xxs", "edgenext_xx_small", "poolformer_s12"),
    *("pvt_v2_b0", "efficientvit_b0", "fastvit_t8", "starnet_s1", "repvit_m0_9"),
)
"""42 architectures."""
TABLE = Path(__file__).with_suffix(".csv")


def randomise(model: nn.Module, x: Tensor) -> None:
    """Norms and layer scales as trained networks have them; with those of a new one, equality says nothing."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for name, parameter in model.named_parameters():
        if "gamma" in name or "layer_scale" in name:
            nn.init.uniform_(parameter, 0.5, 1.0)
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.3, 0.9)
        nn.init.normal_(norm.bias, std=0.1)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(x)  # statistics near the true ones, so that the signal neither dies nor explodes
    for norm in norms:
        norm.momentum = 0.1


@torch.no_grad()
def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """In eval and in train mode; the statistics, which the latter moves, are put back."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    found = []
    for training in (False, True):
        torch.manual_seed(1)
        found.append(model.train(training)(x))
    model.load_state_dict(state)
    return found


def awake(model: Any, x: Tensor) -> int:
    """How many gates have a gradient in each of their layers, in the first of two steps or the second."""
    layers = {
        site.gate: {name: m for name, m in model.get_submodule(site.gate).named_modules() if [*m.parameters(False)]}
        for site in model.gate_sites
    }
    asleep = {(gate, name): layer for gate, parts in layers.items() for name, layer in parts.items()}
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), torch.arange(len(x))).backward()
        asleep = {
            place: layer
            for place, layer in asleep.items()
            if not any(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters(False))
        }
        optimizer.step()
    return len(model.gate_sites) - len({gate for gate, _ in asleep})


def measure(name: str, attentions: Sequence[str] = ATTENTIONS) -> Iterator[Mapping[str, object]]:
    """The network's rows of the table, one an attention."""
    torch.manual_seed(0)
    network: Any = timm.create_model(name)
    cfg = network.pretrained_cfg
    side = cfg["input_size"][1] if cfg.get("fixed_input_size") else 64
    x = torch.randn(2, 3, side, side)
    randomise(network, x)
    plain = outputs(network, x)
    assert all(y.isfinite().all() and y.std() > 1e-6 for y in plain), f"{name} computes nothing"
    for attention in attentions:
        model = zoo.attach(deepcopy(network), attention, "stages")
        in_eval, in_train = ((a - b).abs().max().item() for a, b in zip(outputs(model, x), plain, strict=True))
        learning = awake(model, x)
        for site in model.gate_sites:
            model.get_submodule(site.gate).make_constant()
        missing = model.load_state_dict(network.state_dict(), strict=False).missing_keys
        gates = tuple(f"{site.gate}." for site in model.gate_sites)
        loads = all(key.startswith(gates) for key in missing) and torch.equal(outputs(model, x)[0], plain[0])
        yield {
            "family": type(model).__module__.split(".")[-1],
            "network": name,
            "attention": attention,
            "in_eval": in_eval,
            "in_train": in_train,
            "gates": len(model.gate_sites),
            "learning": learning,
            "plain_weights_load": loads,
        }


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows of the file as Markdown, a line a family of timm."""
    lines = ["| family | networks | gates | largest difference, eval | train | gates that learn | plain weights load |"]
    lines.append("|---" * 7 + "|")
    for family in sorted({row["family"] for row in rows}):
        own = [row for row in rows if row["family"] == family]
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(row["network"] for row in own))
        apart = [f"{max(float(row[key]) for row in own):.1e}" for key in ("in_eval", "in_train")]
        gates, learning = (sum(int(row[key]) for row in own) for key in ("gates", "learning"))
        load = "yes" if all(row["plain_weights_load"] == "True" for row in own) else "no"
        lines.append(f"| {family} | {names} | {gates} | {' | '.join(apart)} | {learning} | {load} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is not in the table yet."""
    logging.getLogger("zoo").setLevel(logging.ERROR)  # which networks have attention of their own is known
    rows: list[Mapping[str, object]] = [*read_rows(TABLE)[1]] if TABLE.exists() else []
    conditions = f"torch {torch.__version__}, timm {timm.__version__}, CPU"
    done = {(row["network"], row["attention"]) for row in rows}
    for name in NETWORKS:
        if left := [a for a in ATTENTIONS if (name, a) not in done]:
            require_like(TABLE, conditions)
        for row in measure(name, left) if left else ():
            rows.append(row)
            print(*row.values(), flush=True)
            write_rows(TABLE, conditions, rows)


if __name__ == "__main__":
    main()
