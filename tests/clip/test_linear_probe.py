import itertools
import sys

import pytest
import torch

from unclip.clip.linear_probe import linear_probe, search
from unclip.errors import OptionError


def three_corners(count, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3 + 5  # labels need not start at 0
    corners = torch.tensor([[0.0, 2.0], [-1.8, -1.0], [1.8, -1.0]])
    features = corners[labels - 5] + spread * torch.randn(count, 2, generator=generator)
    return features, labels


def test_separable_data_are_separated():
    train, validation, test = (three_corners(60, 0.2, seed) for seed in range(3))
    probe = linear_probe(train, validation)
    assert probe.accuracy(*test) == 1
    assert max(probe.validation.values()) == probe.validation[probe.strength] == 1


def test_overlapping_corners_reach_the_best_possible_accuracy():
    train, validation = three_corners(300, 1.2, 0), three_corners(300, 1.2, 1)
    features, labels = three_corners(3000, 1.2, 2)
    corners = torch.tensor([[0.0, 2.0], [-1.8, -1.0], [1.8, -1.0]])
    best = ((torch.cdist(features, corners).argmin(dim=1) + 5) == labels).double().mean()
    probe = linear_probe(train, validation)
    assert abs(probe.accuracy(features, labels) - best) < 0.01
    assert best < 0.95  # it has something to get wrong


def test_refits_on_both_splits():
    """The third label exists in the validation split alone."""
    (features, labels), validation = three_corners(60, 0.2, 0), three_corners(60, 0.2, 1)
    two = labels < 7
    probe = linear_probe((features[two], labels[two]), validation)
    assert probe.classifier.classes_.tolist() == [5, 6, 7]


@pytest.mark.parametrize("peak", [0, 1, 37, 48, 95, 96])
def test_search_finds_the_peak_of_the_grid(peak):
    asked = []

    def score(k):
        asked.append(k)
        return -float(abs(k - peak))

    best, scores = search(score)
    assert best == peak
    assert len(asked) == len(scores) <= 7 + 2 * 4  # of 97
    assert len(set(asked)) == len(asked)


def test_search_stays_in_the_middle_of_a_plateau():
    best, _ = search(lambda k: float(20 <= k <= 70))
    assert 36 <= best <= 54


def test_strengths_span_twelve_decades():
    train, validation = three_corners(30, 1.0, 0), three_corners(30, 1.0, 1)
    tried = list(linear_probe(train, validation, iterations=3).validation)
    assert tried[0] == pytest.approx(1e-6)
    assert tried[-1] == pytest.approx(1e6)
    assert min(b / a for a, b in itertools.pairwise(tried)) == pytest.approx(10**0.125)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    data = three_corners(9, 1.0, 0)
    with pytest.raises(OptionError, match=r"unclip\[evaluate\]"):
        linear_probe(data, data)


def test_one_label_cannot_be_probed():
    features, labels = three_corners(9, 1.0, 0)
    with pytest.raises(OptionError, match="two labels"):
        linear_probe((features, torch.full_like(labels, 5)), (features, labels))
