"""Ranks of a real gloo pool with unequal data give the values of one process, and send no features."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch

from deq_collapse.metrics import NeuralCollapse

WORLD = 4
# Wide and narrow features: NC1 from the samples in the span of the means, and from the scatter matrix.
CLASSES, WIDE, NARROW = 6, 16, 10
# How the samples of 400 fall on the ranks.
SHARES = {
    "uneven": {1: [400], 2: [390, 10], 3: [200, 1, 199], 4: [7, 150, 3, 240]},
    "a rank without samples": {2: [400, 0], 3: [0, 250, 150], 4: [100, 0, 300, 0]},
}
MAJORITY = [0, 1]


def _samples(dtype, width):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (400,), generator=generator)
    means = 100 * torch.randn(CLASSES, width, generator=generator)
    features = means[labels] + 0.1 * torch.randn(400, width, generator=generator)
    return features.to(dtype), labels


def _jobs():
    jobs = {}
    for kind in product((torch.float32, torch.float64), (NARROW, WIDE)):
        features, labels = _samples(*kind)
        for name, worlds in SHARES.items():
            for sizes in worlds.values():
                shards = list(zip(features.split(sizes), labels.split(sizes), strict=True))
                jobs[name, len(sizes), *kind] = shards
        for world in range(2, WORLD + 1):
            # Classes 0 and 1 live on the first rank alone, the others everywhere.
            rank = torch.where(labels < 2, 0, torch.arange(400) % world)
            jobs["a class on one rank only", world, *kind] = [
                (features[rank == r], labels[rank == r]) for r in range(world)
            ]
    return jobs


JOBS = _jobs()


def _classifier(dtype, width):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(CLASSES, width, generator=generator, dtype=dtype)
    return weight, torch.randn(CLASSES, generator=generator, dtype=dtype)


def _arguments(width):
    return {"num_classes": CLASSES, "num_features": width, "majority": MAJORITY}


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    """Results of every rank for every job."""
    folder = tmp_path_factory.mktemp("gloo")
    jobs = [
        {"shards": shards, "classifier": _classifier(dtype, width), "arguments": _arguments(width)}
        for (_, _, dtype, width), shards in JOBS.items()
    ]
    torch.save(jobs, folder / "jobs.pt")
    worker = Path(__file__).with_name("gloo_worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # A rank that hangs in a collective fails the test instead of holding it.
    subprocess.run([sys.executable, worker, str(WORLD), folder], env=environment, timeout=300, check=True)
    results = [torch.load(folder / f"rank{rank}.pt") for rank in range(WORLD)]
    return {key: [rank[i] for rank in results if rank[i]] for i, key in enumerate(JOBS)}


def _alone(dtype, width):
    metric = NeuralCollapse(**_arguments(width))
    metric.update(*_samples(dtype, width), *_classifier(dtype, width))
    return metric


def _name(job):
    return "-".join(map(str, job))


@pytest.mark.parametrize("job", JOBS, ids=_name)
def test_ranks_give_the_values_of_one_process(pool, job):
    alone = _alone(*job[2:])
    # Float32 products of other batches round otherwise; the merge itself is exact.
    tolerance = 1e-9 if job[2] == torch.float64 else 1e-6
    assert len(pool[job]) == job[1]
    for rank in pool[job]:
        for found, expected in ((rank["values"], alone.compute()), (rank["classes"], alone.class_values())):
            assert found.keys() == expected.keys()
            for name in expected:
                torch.testing.assert_close(
                    found[name], expected[name], rtol=tolerance, atol=1e-9, equal_nan=True, msg=name
                )


@pytest.mark.parametrize("job", JOBS, ids=_name)
def test_after_compute_every_rank_holds_its_own_samples_again(pool, job):
    assert [rank["own"] for rank in pool[job]] == [len(labels) for _, labels in JOBS[job]]


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_what_a_rank_sends_depends_on_classes_and_width_alone(pool, width):
    sent = {rank["sent"] for job in JOBS for rank in pool[job] if job[3] == width}
    moments = (CLASSES + 2) * (2 * width + 3) + 1 + width**2 * (width == NARROW)
    classifier, outside, tally = CLASSES * (width + 1) + 1, width + 2, 4 * CLASSES
    # Twice, for values and for class values.
    assert sent == {2 * 8 * (moments + classifier + outside + tally)}
