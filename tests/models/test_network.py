"""The network: what goes through it, what it refuses, and that its two branches are equal in size."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from deq_collapse.callbacks import Along
from deq_collapse.callbacks.costs import flops_per_image
from deq_collapse.errors import UserError
from deq_collapse.models import (
    ConvCell,
    ConvEncoder,
    Equilibrium,
    Explicit,
    GlobalAverage,
    MonotoneCell,
    MultiscaleCell,
    Network,
    ResidualCell,
    TokenAverage,
)
from deq_collapse.models.cells.bounded import Bounded

IMAGE = (1, 8, 8)
REFINEMENTS = {
    "explicit": partial(Explicit, block=partial(ConvCell, lipschitz=None)),
    "equilibrium": partial(Equilibrium, cell=partial(ConvCell, lipschitz=0.9)),
}
each = pytest.mark.parametrize("refinement", REFINEMENTS.values(), ids=REFINEMENTS)


def network(refinement, **parts) -> Network:
    torch.manual_seed(0)
    default = {
        "encoder": partial(ConvEncoder, width=6, depth=2),
        "refinement": refinement,
        "readout": GlobalAverage(),
        "classifier": nn.Linear,
    }
    return Network(IMAGE, 3, **(default | parts))


@each
def test_logits_are_the_classifier_on_the_features(refinement):
    net, x = network(refinement).eval(), torch.randn(5, *IMAGE)
    assert net.features(x).shape == (5, net.num_features) == (5, 6)
    assert torch.equal(net(x), net.classifier(net.features(x)))


@each
def test_features_of_another_width_reach_the_classifier(refinement):
    net = network(refinement, readout=nn.Flatten())
    assert net.num_features == 6 * 4 * 4
    assert net(torch.randn(2, *IMAGE)).shape == (2, 3)


def test_the_branches_have_equal_parameters_and_they_are_counted_by_hand():
    counts = [network(refinement).parameter_counts() for refinement in REFINEMENTS.values()]
    encoder = 6 * 1 * 9 + 6 * 6 * 9 + 2 * 2 * 6  # two convolutions, two batch norms
    refinement, classifier = 2 * 6 * 6 * 9, 3 * 6 + 3
    assert counts[0] == counts[1]
    assert counts[0] == {
        "encoder": encoder,
        "refinement": refinement,
        "readout": 0,
        "classifier": classifier,
        "total": encoder + refinement + classifier,
    }


def test_the_branches_share_all_but_the_refinement_for_one_seed():
    one, other = (network(refinement) for refinement in REFINEMENTS.values())
    for a, b in zip(one.encoder.parameters(), other.encoder.parameters(), strict=True):
        assert torch.equal(a, b)


def test_frozen_weights_are_not_counted():
    net = network(REFINEMENTS["explicit"])
    net.classifier.requires_grad_(False)
    assert net.parameter_counts()["classifier"] == 0


@each
def test_measuring_twice_gives_equal_bits_and_changes_no_buffer(refinement):
    net, x = network(refinement), torch.randn(5, *IMAGE)
    net(x).sum().backward()  # as in a run: batch norm and power iteration have moved
    net.eval()
    before = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        assert torch.equal(net(x), net(x))
        flops_per_image(net, x)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@each
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"]
)
def test_a_copy_computes_the_same(refinement, copied):
    net, x = network(refinement), torch.randn(5, *IMAGE)
    net(x).sum().backward()
    net.eval()
    assert torch.equal(copied(net)(x), net(x))


@each
def test_weights_reach_another_network_by_state_dict(refinement, tmp_path):
    one, other, x = network(refinement), network(refinement), torch.randn(5, *IMAGE)
    one(x).sum().backward()
    torch.optim.SGD(one.parameters(), lr=0.1).step()
    assert not torch.equal(one.eval()(x), other.eval()(x))
    torch.save(one.state_dict(), tmp_path / "weights")
    other.load_state_dict(torch.load(tmp_path / "weights", weights_only=True))
    assert torch.equal(one(x), other(x))


@each
def test_making_a_network_changes_no_running_statistics(refinement):
    """It is tried on an image of zeros, in eval mode, to learn its shapes."""
    norm = network(refinement).encoder[1]
    assert not norm.running_mean.any()
    assert norm.num_batches_tracked == 0
    assert norm.training


class Frozen(nn.Module):
    """An encoder whose norm its user keeps in eval mode."""

    def __init__(self, image_shape):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(image_shape[0], 6, 3, padding=1), nn.BatchNorm2d(6).eval()

    def forward(self, x):
        return self.norm(self.conv(x))


def test_a_norm_that_its_user_froze_stays_frozen():
    net = Network((1, 8, 8), 3, Frozen, lambda shape: nn.Identity(), GlobalAverage(), nn.Linear)
    flops_per_image(net, torch.zeros(2, 1, 8, 8))
    Along().check(net, (1, 8, 8))
    assert [name for name, part in net.named_modules() if not part.training] == ["encoder.norm"]


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize(
    ("part", "made", "said"),
    [
        (
            "encoder",
            lambda shape: nn.Flatten(0),
            r"the encoder turns \(1, 1, 8, 8\) into \(64,\), but \(N, d\) or \(N, C",
        ),
        ("encoder", lambda shape: Pair(), r"the encoder turns \(1, 1, 8, 8\) into tuple"),
        ("encoder", lambda shape: nn.Conv2d(3, 6, 1), r"the encoder cannot take .* \(1, 1, 8, 8\): Given"),
        ("encoder", lambda shape: nn.Flatten(), r"ConvCell works on maps .* H0 has the shape \(64,\)"),
        ("refinement", lambda shape: nn.Flatten(0), r"the refinement turns \(1, 6, 4, 4\) into \(96,\)"),
        ("refinement", lambda shape: nn.Linear(3, 3), r"the refinement cannot take .* \(1, 6, 4, 4\): mat1"),
        ("readout", nn.Identity(), r"the readout turns .* into \(1, 6, 4, 4\), but \(N, d\) is needed"),
    ],
)
def test_a_part_of_the_wrong_shape_is_refused_by_name(part, made, said):
    with pytest.raises(UserError, match=said):
        network(**{"refinement": REFINEMENTS["explicit"], part: made})


@pytest.mark.parametrize(("depth", "stem_stride", "side"), [(1, 1, 7), (1, 2, 4), (3, 1, 2), (2, 2, 2)])
def test_the_encoder_halves_the_map_rounding_up(depth, stem_stride, side):
    encoder = ConvEncoder((2, 7, 7), width=5, depth=depth, stem_stride=stem_stride)
    h0 = encoder(torch.randn(3, 2, 7, 7))
    assert h0.shape == (3, 5, side, side)
    assert (h0 >= 0).all()


def test_the_global_average_is_the_mean_over_the_map_and_leaves_vectors():
    z = torch.arange(12.0).view(1, 2, 2, 3)
    assert GlobalAverage()(z).tolist() == [[2.5, 8.5]]
    assert GlobalAverage()(z[:, :, 0, 0]).tolist() == [[0.0, 6.0]]


@pytest.mark.parametrize("readout", [GlobalAverage(), nn.Identity(), nn.Flatten()])
def test_a_backbone_alone_is_an_identity_for_refinement_and_its_vectors_are_the_features(readout):
    net = network(nn.Identity, encoder=lambda shape: nn.Flatten(), readout=readout)
    x = torch.randn(5, *IMAGE)
    assert torch.equal(net.features(x), x.flatten(1))
    assert net.num_features == 64
    assert net.parameter_counts()["refinement"] == 0


@pytest.mark.parametrize("sizes", [(64,), (8, 8), (2, 4, 8), (2, 2, 2, 8)])
def test_h0_may_have_any_number_of_dimensions(sizes):
    told = []

    def refinement(shape):
        told.append(shape)
        return nn.Identity()

    encoder = nn.Sequential(nn.Flatten(), nn.Unflatten(1, sizes))
    readout = TokenAverage() if len(sizes) == 2 else GlobalAverage()
    net = network(refinement, encoder=lambda shape: encoder, readout=readout)
    assert told == [sizes]
    assert net.num_features == sizes[0]
    assert net(torch.randn(3, *IMAGE)).shape == (3, 3)


LAYOUTS = REFINEMENTS | {
    "monotone": partial(Equilibrium, cell=MonotoneCell),
    "multiscale": partial(Equilibrium, cell=MultiscaleCell),
    "residual": partial(Equilibrium, cell=partial(ResidualCell, groups=2, weight_norm=True)),
}


@pytest.mark.parametrize("solver", ["anderson_relative", "broyden_relative", "fixed_point_relative"])
@pytest.mark.parametrize("refinement", LAYOUTS.values(), ids=LAYOUTS)
def test_channels_last_changes_the_layout_and_no_value(refinement, solver):
    if "cell" in refinement.keywords:
        refinement = partial(refinement, solver=solver, tol=1e-10, backward_tol=1e-10, max_iter=100)
    elif solver != "anderson_relative":
        pytest.skip("an explicit refinement has no solver")
    x, y = torch.randn(5, *IMAGE, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    values = {}
    for last in (False, True):
        net = network(refinement, channels_last=last).double()
        for bounded in (module for module in net.modules() if isinstance(module, Bounded)):
            bounded.power_iteration(500, tol=0)  # else rounding decides between two vectors that are as long
        h0 = net.encoder(x)
        assert h0.is_contiguous(memory_format=torch.channels_last) == last
        nn.functional.cross_entropy(net(x), y).backward()
        values[last] = [net(x), net.eval()(x), *(p.grad for p in net.parameters())]
    torch.testing.assert_close(values[True], values[False], rtol=1e-7, atol=1e-9)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own
@each
def test_compiled_parts_give_the_same_values_and_gradients(refinement):
    plain, compiled = (network(refinement, channels_last=True) for _ in range(2))
    compiled.compile(dynamic=False, backend="aot_eager")  # the default one calls a C++ compiler for minutes
    for count in (8, 5):
        x, y = torch.randn(count, *IMAGE), torch.randint(3, (count,))
        for net in (plain, compiled):
            net.train().zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
        for p, q in zip(plain.parameters(), compiled.parameters(), strict=True):
            assert (p.grad - q.grad).norm() <= 1e-4 * p.grad.norm()
    with torch.inference_mode():
        torch.testing.assert_close(compiled.eval()(x), plain.eval()(x), rtol=1e-4, atol=1e-5)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    copied = pickle.loads(pickle.dumps(compiled))
    torch.testing.assert_close(copied(x), plain(x), rtol=1e-4, atol=1e-5)
