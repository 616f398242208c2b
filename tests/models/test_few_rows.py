"""Products of few rows: the same numbers as `F.linear`, for a while, and only where it is a gain."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dudi.models import few_rows as module
from dudi.models.few_rows import FEW, few_rows, multiply_few


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 100)


@pytest.mark.parametrize("rows", [1, 2, 4, 5, 16, FEW, FEW + 1])
@pytest.mark.parametrize(("inputs", "outputs"), [(12, 96), (40, 40)])
@pytest.mark.parametrize("bias", [False, True])
def test_the_product_is_that_of_linear(rows, inputs, outputs, bias):
    draw = torch.Generator().manual_seed(rows)
    states, weight = torch.randn(rows, inputs, generator=draw), torch.randn(outputs, inputs, generator=draw)
    added = torch.randn(outputs, generator=draw) if bias else None
    torch.testing.assert_close(multiply_few(states, weight, added), F.linear(states, weight, added))
    strided = states.t().contiguous().t()
    torch.testing.assert_close(multiply_few(strided, weight, added), F.linear(states, weight, added))


@torch.no_grad()
def test_layers_multiply_so_while_it_is_inside():
    model = nn.Sequential(nn.Linear(20, 100), nn.Tanh(), nn.Linear(100, 20, bias=False), nn.Linear(20, 4))
    shapes = [(3, 20), (6, 1, 20), (2, 5, 20), (7, 9, 20), (20,)]
    states = [torch.randn(*shape) for shape in shapes]
    before = [model(one) for one in states]
    with few_rows(model):
        assert ["forward" in layer.__dict__ for layer in model] == [True, False, True, False]  # the last one is small
        inside = [model(one) for one in states]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model(states[0]).dtype == torch.bfloat16
    assert not any("forward" in layer.__dict__ for layer in model)
    for one, other in zip(before, inside, strict=True):
        torch.testing.assert_close(one, other)


def test_a_forward_that_somebody_gave_stays():
    layer = nn.Linear(20, 100)
    layer.forward = lambda states: states
    with few_rows(layer):
        assert layer(1) == 1
    assert layer(1) == 1


def test_another_precision_is_left_alone():
    model = nn.Linear(20, 100).bfloat16()
    with few_rows(model):
        assert "forward" not in model.__dict__
