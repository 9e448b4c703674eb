"""What the evaluation counts on each split: retrieval by the evaluator, colours, counts, distances.

Scores are corrected for chance by what the evaluator makes of real pictures. Knows no files.
"""

from collections.abc import Sequence

import captions
import numpy as np
import torch
from candidates import Candidate, Candidates, named
from held_out import Question, alone_on_white, held_out, shown
from jaxtyping import Bool, Float
from judge import Eyes, Judge, Pictures, images
from scenes import Scenes
from torch import Tensor

from unclip.evaluation.colours import coloured
from unclip.evaluation.distances import kid
from unclip.evaluation.objects import both_named, close_up, halves, right_counts
from unclip.evaluation.report import Row
from unclip.evaluation.retrieval import best_ranks, ranks_among, retrieved
from unclip.evaluation.statistics import chance_of, corrected, quotient, ratio, share

CELL_BARS = {"concept": 0.75, "style": 0.75, "both": 0.6}
KID_BAR = 5.0
FLOOR = 1000
"""Real pictures of either kind whose KID the drawn ones' is compared with: of 500 it is hardly
more than its standard error."""


def cells(judge: Judge, source: Scenes, count: int) -> list[Row]:
    """Split B: concept, style and both, in English and Korean; and the nearest training image."""
    questions = held_out(source, "B", count)
    candidates = Candidates(source)
    lists = [candidates.cell(q.rows[0], q.key) for q in questions]
    real, drawn = images(questions), judge.draw("B", questions)
    shown_instead = nearest_training_images(judge, source, questions)
    judge.show("unseen cells (B): real, drawn", questions, real, drawn)
    found = {
        kind: cell_hits(judge, pictures, lists)
        for kind, pictures in (("real", real), ("drawn", drawn), ("baseline", shown_instead))
    }
    about = "unseen cells (B), R@1 of 100"
    rows = []
    for what, bar in CELL_BARS.items():
        chance = torch.tensor([_chance(options, what) for options in lists])
        rows.append(Row(about, "real", what, share(found["real"][what])))
        for kind, said in (("drawn", "drawn"), ("baseline", "nearest training caption's image")):
            score = corrected(found[kind][what], found["real"][what], chance)
            rows.append(
                Row(about, said, f"{what}, corrected", score, bar if said == kind else None)
            )
    better = found["drawn"]["both"].double() - found["baseline"]["both"].double()
    difference = ratio(better, torch.ones_like(better))
    rows.append(Row(about, "drawn", "both, above the nearest training image", difference, 0.0))
    return rows + _korean(judge, questions, lists, found["drawn"]["both"])


def concepts(judge: Judge, source: Scenes, count: int) -> list[Row]:
    """Split C: concepts never drawn, from their names and keywords."""
    questions, candidates = held_out(source, "C", count), Candidates(source)
    text = _embedded(judge, [candidates.concepts(q.rows[0], q.key) for q in questions])
    real, drawn = images(questions), judge.draw("C", questions)
    judge.show("concepts never drawn (C): real, drawn", questions, real, drawn)
    places = {k: ranks_among(judge.see(p), text) for k, p in (("real", real), ("drawn", drawn))}
    about = "concepts never drawn (C), of 100"
    rows = [Row(about, kind, "R@10", share(place < 10)) for kind, place in places.items()]
    score = corrected(places["drawn"] < 10, places["real"] < 10, 0.1)
    return [*rows, Row(about, "drawn", "R@10, corrected", score, 0.25)]


def colours(judge: Judge, source: Scenes, count: int) -> list[Row]:
    """Split D and its trained colours; on real pictures it is the measure that is tested."""
    rows = []
    for split, about in (
        ("D trained", "colours, trained pairs"),
        ("D", "colours, unseen pairs (D)"),
    ):
        questions = held_out(source, split, count)
        asked = [question.colours for question in questions]
        kinds = {"real": images(questions), "drawn": judge.draw(split, questions)}
        judge.show(f"{about}: real, drawn", questions, *kinds.values())
        for kind, pictures in kinds.items():
            right = coloured(pictures, asked)
            swapped = coloured(pictures, [pair[::-1] for pair in asked]).all(dim=1)
            bar = 0.95 if (kind, split) == ("drawn", "D") else None
            rows += [
                Row(about, kind, "glyph and background", share(right.all(dim=1)), bar),
                Row(about, kind, "glyph", share(right[:, 0])),
                Row(about, kind, "background", share(right[:, 1])),
                Row(about, kind, "the two swapped", share(swapped)),
            ]
    return rows


def relations(judge: Judge, source: Scenes, count: int) -> list[Row]:
    """Split E: each half's noun among the evaluator's five nearest of a hundred, in both halves."""
    questions, candidates = held_out(source, "E", count), Candidates(source)
    nouns = tuple(
        torch.stack(
            [
                judge.read(candidates.nouns(captions.phrase(shown(q.rows[half])), q.rows, q.key))
                for q in questions
            ]
        )
        for half in (0, 1)
    )
    kinds = {"real": images(questions), "drawn": judge.draw("E", questions)}
    judge.show("two things, unseen pairs (E): real, drawn", questions, *kinds.values())
    about, hits = "two things, unseen pairs (E)", {}
    for kind, pictures in kinds.items():
        parts = [
            [close_up(half) for half in halves(picture, question.relation)]
            for picture, question in zip(pictures, questions, strict=True)
        ]
        first, second = (judge.see(np.stack(side)) for side in zip(*parts, strict=True))
        hits[kind] = both_named(first, second, nouns)
    measure = "both halves' nouns in the top 5 of 100"
    rows = [Row(about, kind, measure, share(found)) for kind, found in hits.items()]
    score = corrected(hits["drawn"], hits["real"], 0.05**2)
    return [*rows, Row(about, "drawn", f"{measure}, corrected", score, 0.6)]


def words(judge: Judge, source: Scenes, count: int) -> list[Row]:
    """Split S: keywords no caption contained; any concept a word stands for is right."""
    rows, candidates = [], Candidates(source)
    for split, language, bar in (("S", "English", 0.6), ("S ko", "Korean", None)):
        questions = held_out(source, split, count)
        about = f"unseen words (S), {language}"
        lists, right = meanings(candidates, questions)
        chance = torch.tensor([chance_of(int(r.sum()), len(r), 10) for r in right])
        kinds = {"real": images(questions), "drawn": judge.draw(split, questions)}
        judge.show(f"{about}: real, drawn", questions, *kinds.values())
        hits = {
            kind: among_nearest(judge, judge.see(pictures), lists, right)
            for kind, pictures in kinds.items()
        }
        measure = f"concept in the top 10 of {right.shape[1]}"
        rows += [Row(about, kind, measure, share(found)) for kind, found in hits.items()]
        score = corrected(hits["drawn"], hits["real"], chance)
        rows.append(Row(about, "drawn", f"{measure}, corrected", score, bar))
    return rows


def meanings(
    candidates: Candidates, questions: Sequence[Question]
) -> tuple[list[list[Candidate]], Bool[Tensor, "q c"]]:
    """Concepts that each word is looked for among, and which of them it stands for."""
    lists = [candidates.words(question.concepts, question.key) for question in questions]
    right = [
        [option.concept in question.concepts for option in options]
        for question, options in zip(questions, lists, strict=True)
    ]
    return lists, torch.tensor(right)


def among_nearest(
    eyes: Eyes,
    seen: Float[Tensor, "q d"],
    lists: Sequence[Sequence[Candidate]],
    right: Bool[Tensor, "q c"],
) -> Bool[Tensor, " q"]:
    """Whether a right concept is among the ten nearest to each embedding."""
    named = (eyes.read([option.caption for option in options]) for options in lists)
    similar = [names @ z for names, z in zip(named, seen, strict=True)]
    return best_ranks(torch.stack(similar), right) < 10


def counts(judge: Judge, source: Scenes, count: int) -> list[Row]:
    """Two to five copies, counted on the pixels."""
    questions = held_out(source, "counts", count)
    asked = [question.number for question in questions]
    kinds = {"real": images(questions), "drawn": judge.draw("counts", questions)}
    judge.show("two to five things: real, drawn", questions, *kinds.values())
    about = "two to five things, counted"
    return [
        Row(about, kind, "right number", share(right_counts(pictures, asked)))
        for kind, pictures in kinds.items()
    ]


def training_captions(judge: Judge, source: Scenes, count: int) -> list[Row]:
    """Retrieval among captions such as training shows."""
    questions = distinct(source, count)
    text = judge.read([question.caption for question in questions])
    kinds = {"real": images(questions), "drawn": judge.draw("train", questions)}
    judge.show("training captions: real, drawn", questions, *kinds.values())
    about = f"training captions, of {count}"
    hits = {kind: retrieved(judge.see(pictures), text) for kind, pictures in kinds.items()}
    rows = [Row(about, kind, "R@1", share(found)) for kind, found in hits.items()]
    score = corrected(hits["drawn"], hits["real"], 1 / count)
    return [*rows, Row(about, "drawn", "R@1, corrected", score)]


def distances(judge: Judge, folder: Sequence[Scenes], count: int) -> list[Row]:
    """KID to held-out pictures, against that of as many trained ones; whole, and in quarters.

    Args:
        judge: judges.
        folder: scenes of each size that is judged.
        count: pictures that are drawn.
    """
    rows = []
    for source in folder:
        size = source.size
        held = held_out(source, "B", max(count, FLOOR))
        questions, trained = held[:count], held_out(source, "B trained", len(held))
        kinds = {
            "held": images(held),
            "real": images(questions),
            "trained": images(trained),
            "drawn": judge.draw("B", questions, size=size),
        }
        if size > 64:
            judge.show(f"unseen cells (B) at {size} px: real, drawn", questions,
                       kinds["real"], kinds["drawn"])  # fmt: skip
        views = {"": lambda pictures: pictures}
        if size > 64:
            views[", quarters of the picture"] = quarters
        for said, view in views.items():
            seen = {kind: _scaled(judge.see(view(pictures))) for kind, pictures in kinds.items()}
            floor = kid(seen["held"], seen["trained"])
            ours = kid(seen["real"], seen["drawn"])
            about = f"KID at {size} px{said}"
            bar = KID_BAR if not said else None
            rows += [
                Row(about, "trained cells to held-out cells", "KID", floor),
                Row(about, "drawn to held-out cells", "KID", ours),
                Row(about, "drawn", "ratio of the two", quotient(ours, floor), bar, most=True),
            ]
    return rows


def examine(judge: Eyes, source: Scenes, count: int = 1000) -> list[Row]:
    """The evaluator itself, on real pictures of cells of B and C that it did not train on."""
    questions, candidates = held_out(source, "evaluator", count), Candidates(source)
    seen = judge.see(images(questions))
    rows = []
    for split in ("B", "C"):
        own = [i for i, q in enumerate(questions) if q.rows[0].split == split]
        asked = [questions[i] for i in own]
        about = f"the evaluator on real pictures of {split} it never saw"
        text = _embedded(judge, [candidates.concepts(q.rows[0], q.key) for q in asked])
        place = ranks_among(seen[own], text)
        rows.append(Row(about, "real", "R@1 among 100 concepts", share(place < 1), 0.6))
        lists = [candidates.cell(q.rows[0], q.key) for q in asked]
        hits = cell_hits(judge, images(asked), lists)
        rows += [
            Row(about, "real", f"{what}, R@1 among styles and concepts", share(found))
            for what, found in hits.items()
        ]
    return rows


def distinct(source: Scenes, count: int) -> list[Question]:
    """The first ``count`` questions whose captions differ: else no retrieval could be right."""
    taken = {q.caption: q for q in reversed(held_out(source, "train", 2 * count))}
    found = sorted(taken.values(), key=lambda question: int(question.key.split("/")[-1]))
    return found[:count]


def nearest_training_images(
    judge: Judge, source: Scenes, questions: Sequence[Question]
) -> Pictures:
    """What showing the image of the nearest training caption would give, by the model's own CLIP.

    Among captions of the same form, so that the nearest shares the concept or the style.
    """
    available = source.atlas.available
    rows = [r for r in source.atlas.rows if r.split == "train" and not r.icon]
    taught = {named(row): row for row in rows if available[row.number]}
    with judge.model.clip.use() as clip:
        parts = [
            clip.encode_text(list(taught)[i : i + 256], warn=False).embedding.float().cpu()
            for i in range(0, len(taught), 256)
        ]
        asked = [question.caption for question in questions]
        queries = clip.encode_text(asked, warn=False).embedding.float().cpu()
    nearest = (queries @ torch.cat(parts).T).argmax(dim=1).tolist()
    shown_rows = list(taught.values())
    return np.stack([alone_on_white(source, shown_rows[i]) for i in nearest])


def quarters(pictures: Pictures) -> Pictures:
    """The four quarters of each picture: twice the detail at the evaluator's size."""
    half = pictures.shape[1] // 2
    parts = [pictures[:, y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    return np.concatenate(parts)


def _korean(
    judge: Judge, questions: Sequence[Question], lists: list[list[Candidate]], english: Tensor
) -> list[Row]:
    """The same cells asked for in Korean, judged by the same English candidates."""
    own = [i for i, question in enumerate(questions) if question.korean]
    asked = [questions[i] for i in own]
    pictures = judge.draw("B Korean", asked, [question.korean or "" for question in asked])
    judge.show("unseen cells (B) in Korean: real, drawn", asked, images(asked), pictures)
    hits = cell_hits(judge, pictures, [lists[i] for i in own])["both"]
    about = "Korean prompts on B"
    return [
        Row(about, "drawn from Korean", "both", share(hits)),
        Row(about, "drawn from English", "both", share(english[own])),
        Row(about, "drawn", "Korean as a share of English", ratio(hits, english[own]), 0.85),
    ]


def cell_hits(
    judge: Eyes, pictures: Pictures, lists: Sequence[list[Candidate]]
) -> dict[str, Tensor]:
    """Whether the nearest caption has the right concept, the right style, and both."""
    text = _embedded(judge, lists)
    similarity = torch.einsum("n d, n c d -> n c", judge.see(pictures), text)
    groups = {what: [_right(options, what) for options in lists] for what in CELL_BARS}
    return {what: best_ranks(similarity, torch.tensor(g)) < 1 for what, g in groups.items()}


def _right(options: list[Candidate], what: str) -> list[bool]:
    first = options[0]
    same = {
        "concept": lambda c: c.concept == first.concept,
        "style": lambda c: c.style == first.style,
        "both": lambda c: c is first,
    }[what]
    return [same(candidate) for candidate in options]


def _chance(options: list[Candidate], what: str) -> float:
    return sum(_right(options, what)) / len(options)


def _embedded(judge: Eyes, lists: Sequence[list[Candidate]]) -> Tensor:
    return torch.stack([judge.read([c.caption for c in options]) for options in lists])


def _scaled(z: Tensor) -> Tensor:
    """Unit vectors to components of order one, which the cubic kernel is made for."""
    return z * z.shape[1] ** 0.5
