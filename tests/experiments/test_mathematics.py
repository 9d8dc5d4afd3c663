"""The problems of the mathematical study: right answers, no overlap, what counts as the same problem, how they are
graded, and how they are packed and trained."""

import math
import re
from collections import Counter
from fractions import Fraction

import jax
import numpy as np
import pytest

from experiments.language_models import mathematics
from experiments.language_models.arithmetic_study import a_decoder
from experiments.language_models.families import FAMILIES, PLAIN_FAMILIES, shares
from experiments.language_models.mathematics import draw, for_tests, identity
from experiments.language_models.packed_rows import flat, packed
from experiments.language_models.packed_trainer import Course, PackedTrainer, Training, buckets, record_steps
from experiments.language_models.symbols import SYMBOLS, Symbols, turned
from icl_theory.errors import InputError
from icl_theory.llm.data.batches import pad
from icl_theory.llm.evaluation.answers import is_right
from icl_theory.llm.training.step import learning_rate_at, make_example_losses, make_step, start

COUNTS = {"test": 60, "train": 200}
FRESH = 2


def numbers(text):
    return [int(one) for one in re.findall(r"-?\d+", text)]


def solved(family, prompt, answer):
    """Return whether an answer is right, worked out from the prompt."""
    if family in ("sums", "products", "decimals"):
        return math.isclose(eval(prompt.removesuffix("=")), float(answer), abs_tol=1e-9)
    if family in ("gcd", "lcm"):
        return {"gcd": math.gcd, "lcm": math.lcm}[family](*numbers(prompt)) == int(answer)
    if family == "fractions":
        a, b = numbers(prompt)
        return f"{Fraction(a, b).numerator}/{Fraction(a, b).denominator}" == answer
    if family == "times":
        begin, end = ([int(one) for one in clock.split(":")] for clock in re.findall(r"[\d:]+\d", prompt))
        unit = {"minutes": 2, "seconds": 3}[re.search(r", (\w+) =", prompt)[1]]
        places = [sum(part * 60 ** (unit - 1 - place) for place, part in enumerate(one)) for one in (begin, end)]
        return len(begin) == unit and places[1] - places[0] == int(answer)
    left, right = prompt.removesuffix(", x =").split(" = ")
    return all(abs(eval(left, {"x": float(x)}) - float(right)) < 0.05 for x in answer.split(", "))


@pytest.fixture(scope="module")
def sets():
    pytest.importorskip("reasoning_gym")
    return draw(3, tuple(FAMILIES), **COUNTS, fresh=FRESH)


def test_answers_are_right(sets):
    checked = [row for rows in sets.values() for row in rows if row["source"] not in ("stories", "sequences")]
    wrong = [row for row in checked if not solved(row["source"], row["prompt"], row["answer"])]
    assert not wrong
    assert len(checked) > 400


def test_stories_end_in_their_answer_and_have_levels_by_length(sets):
    stories = [row for rows in sets.values() for row in rows if row["source"] == "stories"]
    for row in stories:
        assert is_right(row["completion"], row["answer"])
        assert {"stories 1": (0, 2), "stories 2": (3, 3), "stories 3": (4, 99)}[row["kind"]][0] <= row[
            "completion"
        ].count("=")
    assert len({row["kind"] for row in stories}) == 3


def test_tests_share_no_problem_with_training_and_sets_have_the_shares_of_the_mixture(sets):
    own = {part: {(row["source"], identity(row["source"], row["prompt"])) for row in sets[part]} for part in sets}
    assert not own["test"] & (own["train"] | own["fresh"])
    for part, count in COUNTS.items():
        kinds = [row["kind"] for row in sets[part]]
        assert {kind: kinds.count(kind) for kind in set(kinds)} == {
            kind: round(share * count) for kind, share in shares(tuple(FAMILIES)).items() if round(share * count)
        }
    assert [row["kind"] for row in sets["train"]] != sorted(row["kind"] for row in sets["train"])


def test_fresh_problems_can_replace_every_copy_of_a_kind(sets):
    trained, fresh = (Counter(row["kind"] for row in sets[part]) for part in ("train", "fresh"))
    assert fresh == {kind: FRESH * count for kind, count in trained.items()}


def test_seeds_draw_the_same_again_and_others_differently(sets):
    one, again, other = (draw(seed, ("gcd", "times"), test=0, train=20, fresh=0) for seed in (3, 3, 4))
    assert one == again != other


def test_a_decoder_from_scratch_reads_all_but_stories(sets):
    text = Symbols()
    for row in sets["train"]:
        if row["source"] == "stories":
            with pytest.raises(InputError, match="leave out stories"):
                text.tokenized(row)
        else:
            found = text.tokenized(row)
            assert len(found.tokens) <= 64
            assert text.decode(found.tokens[found.learned][:-1]) == row["completion"]
            asked = "".join(SYMBOLS[token] for token in found.tokens[~found.learned])
            assert asked == row["prompt"].replace(" ", "")
            assert found.learned.sum() == len(row["completion"].replace(" ", "")) + 1


def test_answers_are_written_from_their_last_digit():
    assert turned("-1218, 4.25") == "-8121, 52.4"
    found = Symbols().tokenized({"prompt": "40 + 2 =", "completion": "42"})
    assert "".join(SYMBOLS[token] for token in found.tokens) == "40+2=24$"


def test_shares_are_unequal_and_whole():
    assert sum(family.share for family in FAMILIES.values()) == pytest.approx(1)
    for families in (PLAIN_FAMILIES, tuple(FAMILIES)):
        found = shares(families)
        assert sum(found.values()) == pytest.approx(1)
        assert len(found) == 3 * len(families)
        assert max(found.values()) > 10 * min(found.values())


@pytest.mark.parametrize(
    ("family", "one", "other", "same"),
    [
        ("sums", "12 + 30 =", "30 + 12 =", True),
        ("sums", "12 + 30 =", "12 + 31 =", False),
        ("sums", "12 + 30 =", "12 - 30 =", False),
        ("gcd", "gcd(12, 30) =", "gcd(30, 12) =", True),
        ("decimals", "1.5 + 2.25 =", "2.25 + 1.5 =", True),
        ("equations", "3*x + 4 = 10, x =", "4*x + 3 = 10, x =", False),
        ("stories", "Ann has 3 figs.", "Bob has 3 figs.", True),
        ("stories", "Ann has 3 figs.", "Ann has 4 figs.", False),
    ],
)
def test_what_is_the_same_problem(family, one, other, same):
    assert (identity(family, one) == identity(family, other)) is same


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        ("60", "60", True),
        ("60", "61", False),
        ("9.72", "9.720", True),
        ("7/23", "7/23", True),
        ("7/23", "7/24", False),
        ("-0.125, 0.0", "-0.125, 0.0", True),
        ("-0.125, 0.0", "-0.125", False),
        ("-0.125, 0.0", "-0.125, 1.0", False),
        ("279", "half of 186 = 93\n93 + 186 = 279\n#### 279", True),
        ("279", "half of 186 = 92\n92 + 186 = 278\n#### 278", False),
    ],
)
def test_how_answers_are_graded(answer, reply, right):
    assert is_right(reply, answer) is right


def a_row(number):
    return {"prompt": f"{number} + 1 =", "completion": str(number + 1), "answer": str(number + 1), "source": "sums"}


def test_problems_are_drawn_until_a_kind_is_exhausted(monkeypatch):
    given = [None, *(a_row(number) for number in range(60))]
    monkeypatch.setattr(mathematics, "stream", lambda family, level, seed: iter(given))
    sets = draw(0, ("sums",), test=0, train=20, fresh=1, fits=lambda row: row["answer"] != "6")
    assert len(sets["train"]) == len(sets["fresh"]) == 20
    assert "6" not in {row["answer"] for row in sets["train"] + sets["fresh"]}
    with pytest.raises(InputError, match="for fresh came of sums 1; give fewer"):
        draw(0, ("sums",), test=0, train=60, fresh=2)


def test_one_problem_in_ten_is_for_tests():
    made = [{"prompt": f"{a} + {b} =", "source": "sums"} for a in range(60) for b in range(a)]
    share = np.mean([for_tests(row) for row in made])
    assert share == pytest.approx(1 / mathematics.HELD_OUT, abs=0.02)
    assert all(
        for_tests(row)
        == for_tests({"prompt": " + ".join(row["prompt"][:-2].split(" + ")[::-1]) + " =", "source": "sums"})
        for row in made[:50]
    )


def test_no_set_trains_on_what_another_tests():
    pytest.importorskip("reasoning_gym")
    for seed in (0, 1):
        sets = draw(seed, ("sums", "gcd"), test=40, train=100, fresh=1)
        assert all(map(for_tests, sets["test"]))
        assert not any(map(for_tests, sets["train"] + sets["fresh"]))


def examples(count, seed=0):
    random, text = np.random.default_rng(seed), Symbols()
    return [text.tokenized(a_row(int(10 ** random.uniform(0, 6)))) for _ in range(count)]


def test_batches_are_packed_whole():
    some = flat(given := examples(30))
    batches = np.random.default_rng(1).integers(30, size=(5, 12))
    weights = np.where(np.arange(30) < 10, 3.0, 1.0)
    found = packed(batches, weights, some, 40)
    assert found.places.shape[1] % 2 == 0
    for step, batch in enumerate(batches):
        seen = []
        for places, segments, weight in zip(found.places[step], found.segments[step], found.weights[step], strict=True):
            for number in range(1, segments.max() + 1):
                own = places[segments == number]
                example = int(np.flatnonzero(some.begins == own[0])[0])
                np.testing.assert_array_equal(some.tokens[own], given[example].tokens)
                np.testing.assert_array_equal(some.learned[own], given[example].learned)
                assert weights[example] == weight
                seen.append(example)
        assert sorted(seen) == sorted(batch.tolist())


@pytest.fixture(scope="module")
def trainer():
    training = Training("adamw", 1e-2, 6, 40, steps=8, warmup=2)
    return PackedTrainer(training, (0, 1), [examples(20), examples(20, 1)], [a_decoder(0, 16, 1), a_decoder(1, 16, 1)])


def test_packed_steps_are_those_of_padded_batches(trainer):
    """With weights, and another set in the second half: the same weights as steps on one example a row."""
    weights = np.where(np.arange(20) < 8, 2.5, 1.0)
    first, later = np.arange(6), np.arange(6, 12)
    seen = []
    found = trainer.run(
        [Course(first, later, weights)] * 2,
        4,
        [1, 4],
        followed=15,
        at_record=lambda step, learner: seen.append((step, int(learner.step[0]))),
    )
    assert seen == [(1, 1), (4, 4)]
    assert found.steps.tolist() == [0, 1, 4]
    assert found.losses.shape == (2, 3, 15)
    for place, seed in enumerate((0, 1)):
        own = examples(20, seed)
        graph, learner = start(a_decoder(seed, 16, 1), "adamw", weight_decay=0.01)
        step, losses = make_step(graph, "adamw", weight_decay=0.01), make_example_losses(graph)
        rows = pad(own[:15], 40)
        np.testing.assert_allclose(found.losses[place, 0], losses(learner.params, rows), rtol=1e-5)
        for number in range(4):
            batch = first if number < 2 else later  # six of six: the order within a batch does not matter
            rate = learning_rate_at(number, peak=1e-2, warmup=2, total=4)
            learner = step(learner, pad([own[row] for row in batch], 40, weight=weights[batch]), rate, 0.0)[0]
        np.testing.assert_allclose(found.losses[place, -1], losses(learner.params, rows), rtol=2e-3)
        for one, two in zip(jax.tree.leaves(found.params), jax.tree.leaves(learner.params), strict=True):
            np.testing.assert_allclose(one[place], two, atol=2e-4)


def test_records_are_log_spaced():
    assert record_steps(1000, 4) == [1, 10, 100, 1000]
    assert record_steps(10, 24) == list(range(1, 11))


def test_buckets_hold_every_example_once():
    given = [examples(10), examples(10, 1)]
    found = list(buckets(given))
    assert np.sort(np.concatenate([rows for rows, _, _ in found], 1), 1).tolist() == [list(range(10))] * 2
    for rows, tokens, learned in found:
        for own, seed_rows, seed_tokens, seed_learned in zip(given, rows, tokens, learned, strict=True):
            for row, text, asked in zip(seed_rows, seed_tokens, seed_learned, strict=True):
                size = len(own[row].tokens)
                np.testing.assert_array_equal(text[:size], own[row].tokens)
                assert asked.sum() == own[row].learned.sum()
