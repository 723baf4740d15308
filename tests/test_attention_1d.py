"""Sequences (B, C, L) by the same code: a gate with `dims=1` is the one for maps on a single row."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo.attention import BAM, CBAM, ECA, Attention, ScSE, SimAM, SqueezeExcite

GATES: list[tuple[type[Attention], dict[str, Any]]] = [
    (SqueezeExcite, {"reduction": 4}),
    (CBAM, {}),
    (CBAM, {"arrangement": "parallel", "spatial_pool": "conv", "norm": False}),
    (BAM, {"dilation": 2}),
    (BAM, {"fuse": "mul", "end_norm": True}),
    (ECA, {}),
    (ScSE, {"fuse": "max"}),
    (SimAM, {}),
]
CHANNELS = 16


def in_middle_row(weight: Tensor, like: Tensor) -> Tensor:
    """A kernel (..., k) as one (..., k, k) that sees its middle row alone."""
    wide = torch.zeros_like(like)
    wide[..., like.shape[-2] // 2, :] = weight
    return wide


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("gate", "options"), GATES)
def test_a_sequence_is_a_map_of_one_row(gate: type[Attention], options: dict[str, Any], training: bool) -> None:
    row, plane = gate(CHANNELS, dims=1, **options), gate(CHANNELS, **options)
    state, like = row.state_dict(), plane.state_dict()
    assert state.keys() == like.keys()
    plane.load_state_dict(
        {
            key: value if value.shape == like[key].shape else in_middle_row(value, like[key])
            for key, value in state.items()
        }
    )
    row.train(training), plane.train(training)
    x = torch.randn(3, CHANNELS, 11)
    torch.testing.assert_close(row(x), plane(x[:, :, None])[:, :, 0])
    for name, values in row.gates(x).items():
        torch.testing.assert_close(values, plane.gates(x[:, :, None])[name][:, :, 0])
        assert values.ndim == 3


@pytest.mark.parametrize("attention", ["se", "cbam", "bam", "eca", "scse"])
def test_attached_to_a_network_for_sequences(attention: str) -> None:
    network = nn.Sequential(nn.Conv1d(2, 16, 5), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 32, 3), nn.ReLU())
    x = torch.randn(4, 2, 40)
    plain = [network.train(training)(x) for training in (False, True)]
    zoo.attach(network, attention, where=["2", "4"], dims=1)
    assert len(network.gate_sites) == 2
    network[1].reset_running_stats()
    for training, expected in zip((False, True), plain, strict=True):
        assert torch.equal(network.train(training)(x), expected)


@pytest.mark.parametrize("attention", ["coord", "triplet", "ha"])
def test_what_has_no_meaning_on_a_sequence(attention: str) -> None:
    with pytest.raises(zoo.AttachError, match=r"not for dims=1; take one of se, cbam, bam, .*scse"):
        zoo.attach(nn.Sequential(nn.Conv1d(2, 8, 3), nn.ReLU()), attention, where="1", dims=1)
