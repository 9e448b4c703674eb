import torch

from unclip.evaluation import retrieval
from unclip.evaluation.retrieval import best_ranks, preferred, ranks, ranks_among, retrieved


def test_retrieval_of_an_exact_case() -> None:
    captions = torch.eye(4)
    images = torch.tensor([[1, 0, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1, 0], [0, 0, 0.6, 0.8]])
    assert retrieved(images, captions).tolist() == [True, False, True, True]
    assert retrieved(images, captions, k=2).all()
    assert retrieved(captions, images).tolist() == [True, True, True, True]


def test_an_evaluator_that_sees_no_difference_retrieves_nothing() -> None:
    same = torch.tensor([1.0, 0.0]).repeat(5, 1)
    assert not retrieved(same, same).any()
    assert ranks(same, same).tolist() == [4] * 5
    assert ranks_among(same, same.expand(5, 5, 2)).tolist() == [4] * 5
    assert not preferred(same, same, same).any()


def test_blocks_change_nothing(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(20, 6, generator=generator) for _ in range(2))
    whole = ranks(a, b)
    monkeypatch.setattr(retrieval, "BLOCK", 3)
    assert torch.equal(ranks(a, b), whole)
    order = (a @ b.T).argsort(dim=1, descending=True)
    assert torch.equal(whole, (order == torch.arange(20)[:, None]).int().argmax(dim=1))


def test_several_candidates_may_be_right() -> None:
    similarity = torch.tensor([[0.1, 0.9, 0.5, 0.3], [0.5, 0.5, 0.2, 0.1]])
    right = torch.tensor([[True, False, True, False], [True, False, False, False]])
    assert best_ranks(similarity, right).tolist() == [1, 1]


def test_candidates_of_ones_own() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    candidates = torch.tensor(
        [[[0.9, 0.1], [1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0]] + [[1.0, 0.0]] * 2]
    )
    assert ranks_among(queries, candidates).tolist() == [1, 0]
