"""Channel attention sees a place in the same light, whatever the window."""

from __future__ import annotations

import pytest
import torch

from geocd.models.attention import ChannelAttention


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return ChannelAttention(8, ratio=2, side=32)


def test_a_window_of_equal_squares_is_seen_as_each_square_alone(attention):
    x = torch.rand(2, 8, 32, 32)
    large = torch.cat([torch.cat([x] * 3, dim=2)] * 2, dim=3)
    torch.testing.assert_close(attention(large), attention(x).expand(2, 8, 96, 64))


def test_attention_follows_its_surroundings_in_a_large_window(attention):
    x = torch.cat([torch.zeros(1, 8, 32, 64), torch.ones(1, 8, 32, 64)], dim=3)
    gate = attention(x)
    torch.testing.assert_close(gate[..., :1, :1], attention(x[..., :32]))
    torch.testing.assert_close(gate[..., -1:, -1:], attention(x[..., -32:]))
    steps = gate.diff(dim=3).abs().amax(dim=(0, 2, 3))
    # Nowhere a seam: a change is spread over half a side.
    assert (steps < (gate[..., -1] - gate[..., 0]).abs().amax(dim=(0, 2)) / 8 + 1e-6).all()


@pytest.mark.parametrize("shape", [(32, 32), (16, 40), (40, 8)])
def test_a_small_window_is_pooled_as_a_whole(attention, shape):
    x = torch.rand(1, 8, *shape)
    gate = attention(x)
    assert gate.shape == (1, 8, 1, 1)
    torch.testing.assert_close(gate, attention(x.flip(2, 3)))


@pytest.mark.parametrize("shape", [(1, 200), (57, 33), (48, 300)])
def test_any_size_has_attention_everywhere(attention, shape):
    gate = attention(torch.rand(1, 8, *shape))
    assert gate.shape == (1, 8, *shape)
    assert gate.min() > 0
    assert gate.max() < 1
