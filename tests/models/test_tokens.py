"""Tokens: what makes them of images, the transformer's cell on them, and what makes features of them."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.models import (
    Equilibrium,
    Explicit,
    GlobalAverage,
    Network,
    PatchEncoder,
    TokenAverage,
    TransformerCell,
)
from deq_collapse.models.cells.transformer import attention

few = settings(max_examples=15)


def network(refinement, readout=None, patch: int = 4) -> Network:
    torch.manual_seed(0)
    encoder = partial(PatchEncoder, patch=patch, width=12)
    return Network(
        (1, 8, 8), 3, encoder, refinement, readout or TokenAverage(), nn.Linear, channels_last=True
    )


def test_a_token_is_its_patch_through_one_matrix_and_its_position():
    torch.manual_seed(0)
    encoder, x = PatchEncoder((2, 6, 9), patch=3, width=5), torch.randn(4, 2, 6, 9)
    patches = [x[:, :, i : i + 3, j : j + 3].flatten(1) for i in (0, 3) for j in (0, 3, 6)]
    weight, bias = encoder.patches.weight.flatten(1), encoder.patches.bias
    expected = torch.stack([F.linear(patch, weight, bias) for patch in patches], 1) + encoder.positions
    torch.testing.assert_close(encoder(x), expected)


@pytest.mark.parametrize("readout", [TokenAverage(), nn.Flatten()])
@pytest.mark.parametrize("refinement", [Equilibrium, Explicit])
def test_both_refinements_work_on_tokens_and_train_every_weight(refinement, readout):
    option = {"cell": TransformerCell} if refinement is Equilibrium else {"block": TransformerCell}
    net = network(partial(refinement, **option), readout)
    net(torch.randn(5, 1, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.num_features == (12 if isinstance(readout, TokenAverage) else 48)


def test_a_readout_of_maps_refuses_tokens_and_the_reverse():
    with pytest.raises(UserError, match=r"\(N, 4, 12\) are tokens .* their readout is TokenAverage"):
        network(partial(Explicit, block=TransformerCell), GlobalAverage())
    with pytest.raises(UserError, match=r"got \(N, 3, 2, 2\): maps are read out by GlobalAverage"):
        TokenAverage()(torch.zeros(1, 3, 2, 2))


def test_the_token_average_is_over_tokens():
    z = torch.arange(12.0).view(1, 3, 4)
    assert TokenAverage()(z).tolist() == [[4, 5, 6, 7]]


@few
@given(seed=st.integers(0, 2**31), tokens=st.integers(1, 5), heads=st.integers(1, 3), width=st.integers(1, 4))
def test_attention_is_that_of_torch(seed, tokens, heads, width):
    torch.manual_seed(seed)
    qkv = torch.randn(2, tokens, 3 * heads * width, dtype=torch.float64)
    q, k, v = (part.unflatten(2, (heads, width)).transpose(1, 2) for part in qkv.chunk(3, 2))
    expected = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(qkv, heads), expected)


def test_the_cell_is_its_formula():
    torch.manual_seed(0)
    cell = TransformerCell((3, 8), init_std=0.5).double()
    z, h0 = torch.randn(2, 5, 3, 8, dtype=torch.float64)
    x = F.layer_norm(h0, (8,))
    y = F.layer_norm(z + x + cell.O(attention(cell.W(z) + cell.U(x), 4)), (8,))
    torch.testing.assert_close(cell(z, h0), F.layer_norm(y + cell.mlp(y), (8,)))


@few
@given(seed=st.integers(0, 2**31), std=st.floats(0.01, 10), scale=st.floats(0.01, 100))
def test_it_maps_everything_into_one_ball(seed, std, scale):
    """So it has a fixed point (Brouwer), whatever its weights."""
    torch.manual_seed(seed)
    cell = TransformerCell((3, 8), init_std=std).double()
    z, h0 = scale * torch.randn(2, 5, 3, 8, dtype=torch.float64)
    assert cell(z, h0).square().mean(2).max() <= 1


@few
@given(seed=st.integers(0, 2**31))
def test_an_evaluation_of_permuted_tokens_is_the_permuted_one(seed):
    torch.manual_seed(seed)
    cell, order = TransformerCell((4, 8), init_std=0.5).double(), torch.randperm(4)
    z, h0 = torch.randn(2, 3, 4, 8, dtype=torch.float64)
    torch.testing.assert_close(cell(z[:, order], h0[:, order]), cell(z, h0)[:, order])


@pytest.mark.parametrize("seed", range(3))
def test_with_first_weights_the_cell_of_a_studys_size_is_solved_soon(seed):
    torch.manual_seed(seed)
    refinement = Equilibrium((16, 48), TransformerCell).eval()
    refinement(PatchEncoder((1, 28, 28), 7, 48)(torch.randn(16, 1, 28, 28)))
    assert not refinement.forward_solve.missed.any()
    assert refinement.forward_solve.evaluations < 20


@pytest.mark.parametrize("width", [48, 64])
def test_four_matched_blocks_have_the_parameters_of_one_within_a_per_cent(width):
    counts = [
        sum(p.numel() for p in Explicit((4, width), TransformerCell, **options).parameters())
        for options in ({}, {"depth": 4, "matched": True})
    ]
    assert counts[1] == pytest.approx(counts[0], rel=0.01)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (partial(PatchEncoder, (1, 8, 6), patch=4), "patch is 4, but it must divide the 8x6 pixels"),
        (partial(PatchEncoder, (1, 8, 8), patch=0), "patch is 0"),
        (partial(PatchEncoder, (1, 8, 8), width=0), "width is 0"),
        (partial(TransformerCell, (4, 6)), "heads is 4, but the 6 numbers of a token"),
        (partial(TransformerCell, (4, 8), heads=0), "heads is 0"),
        (partial(TransformerCell, (4, 8), init_std=0), "init_std is 0"),
        (partial(TransformerCell, (4, 8), inner_width=0), "inner_width is 0"),
        (partial(TransformerCell, (8,)), r"TransformerCell works on tokens \(L, D\), but H0 has the shape"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_in_one_sentence(wrong, said):
    with pytest.raises(UserError, match=said):
        wrong()
