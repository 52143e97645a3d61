import math

import pytest
import torch
from torch import nn

from model.attention import SCORES, ConcatScore, DotScore, GeneralScore, attend


def test_two_keys_by_hand():
    # One query position; scores 0 and ln 3, so the weights are 1/4 and 3/4.
    scores = torch.tensor([[[0.0, math.log(3.0)]]])
    keys = torch.tensor([[[1.0, 0.0, 4.0], [0.0, 2.0, 8.0]]])
    context, weights = attend(scores, keys, torch.tensor([[True, True]]))
    torch.testing.assert_close(weights, torch.tensor([[[0.25, 0.75]]]))
    torch.testing.assert_close(context, torch.tensor([[[0.25, 1.5, 7.0]]]))


def test_masked_positions_weigh_exactly_nothing():
    scores = torch.tensor([[[1.0, 2.0, 50.0]]])
    keys = torch.randn(1, 3, 4)
    context, weights = attend(scores, keys, torch.tensor([[True, True, False]]))
    assert weights[0, 0, 2] == 0.0
    alone, _ = attend(scores[..., :2], keys[:, :2], torch.tensor([[True, True]]))
    torch.testing.assert_close(context, alone)


def test_dot_score_by_hand():
    query = torch.tensor([[[1.0, 2.0]]])
    keys = torch.tensor([[[3.0, 4.0], [5.0, -6.0]]])
    assert DotScore(2)(query, keys).tolist() == [[[11.0, -7.0]]]


def test_general_score_is_the_equation():
    score, query, keys = GeneralScore(3), torch.randn(2, 4, 3), torch.randn(2, 5, 3)
    expected = torch.einsum("bth,bsh->bts", query, score.projection(keys))
    torch.testing.assert_close(score(query, keys), expected)


def test_concat_score_equals_one_linear_layer_over_the_concatenation():
    score, query, keys = ConcatScore(3), torch.randn(2, 4, 3), torch.randn(2, 5, 3)
    joint = nn.Linear(6, 3)
    with torch.no_grad():
        joint.weight.copy_(
            torch.cat([score.query_projection.weight, score.key_projection.weight], dim=1)
        )
        joint.bias.copy_(score.query_projection.bias)
    pairs = torch.cat(
        [query.unsqueeze(2).expand(2, 4, 5, 3), keys.unsqueeze(1).expand(2, 4, 5, 3)], dim=-1
    )
    expected = score.direction(torch.tanh(joint(pairs))).squeeze(-1)
    torch.testing.assert_close(score(query, keys), expected)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_gradients_are_right(name):
    score = SCORES[name](3).double()
    query = torch.randn(2, 2, 3, dtype=torch.double, requires_grad=True)
    keys = torch.randn(2, 3, 3, dtype=torch.double, requires_grad=True)
    mask = torch.tensor([[True, True, True], [True, False, False]])

    def context(query, keys):
        return attend(score(query, keys), keys, mask)[0]

    assert torch.autograd.gradcheck(context, (query, keys))
