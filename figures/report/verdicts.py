"""The verdict table: claims A to D, the words of each verdict following from its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from figures.report.effects import Effect, factor
from figures.report.studies import SETTINGS, Studies, gains
from icl_theory.verification import Row

TINY = 0.02  # a gain of less than this share of the loss is called tiny
TONES = {"yes": "Yes", "part": "In part", "hardly": "Hardly", "no": "Not shown"}
LISTED = {"yes": " and ", "not shown": ", nor ", "no": " and "}  # words, and what stands before the last of a list
RATIOS = {  # statements about several ratios t_d/t_1, and their features; the one that changes least is written
    "sam_simplicity_bias/sam_lowers_learning_time_ratios": (2, 3, 4),
    "upsampling/late_minority_lowers_ratios": (3, 4),
}


class Verdict(NamedTuple):
    """One row of the table.

    Attributes:
        letter: the claim's letter.
        claim: the claim, as a sentence.
        tone: key of `TONES`.
        sentence: the verdict.
        effects: the numbers it rests on, as text.
        figures: names of the figures that show it.
        why: the reason, in a sentence.
    """

    letter: str
    claim: str
    tone: str
    sentence: str
    effects: tuple[str, ...]
    figures: tuple[str, ...]
    why: str


def verdicts(rows: Sequence[Row], features: Mapping[str, int], studies: Studies, figure: str) -> list[Verdict]:
    """Return the verdicts on claims A to D.

    Args:
        rows: all statements, judged.
        features: the feature whose ratio changes least, for each statement of `RATIOS`.
        studies: the saved studies of language models.
        figure: name of the figure of these studies.
    """
    factors = {row.statement.name: factor(row.statement) for row in rows if row.statement.interval}
    ratios = {name: f"t_{feature}/t_1 {factors[name]}" for name, feature in features.items()}
    return [_claim_a(factors, ratios), _claim_b(factors), _claim_c(factors, ratios), _claim_d(studies, figure)]


def _claim_a(factors: Mapping[str, Effect], ratios: Mapping[str, str]) -> Verdict:
    name = "sam_simplicity_bias/sam_lowers_learning_time_ratios"
    merged = factors["sam_simplicity_bias/merged_bias_does_not_fall"]
    words = factors[name].word("below"), merged.word("above")
    sentence = f"{words[0]} with separate keys and queries, {words[1]} with merged ones."
    if words[0] == words[1]:
        sentence = f"{words[0]} with separate and with merged keys and queries."
    return Verdict(
        "A",
        "SAM has a lower simplicity bias.",
        "yes" if set(words) == {"yes"} else "part" if "yes" in words else "no",
        sentence.capitalize(),
        (f"{ratios[name]} at ρ = 0.05", f"merged: progress {merged} of the slow features when the first is learned"),
        ("simplicity_bias",),
        "SAM's perturbation mostly slows the feature that dominates the gradient, the fast one. Merged keys and "
        "queries learn all features in one drop.",
    )


def _claim_b(factors: Mapping[str, Effect]) -> Verdict:
    half, steps = (factors[f"generalisation/sam_is_{name}"] for name in ("ahead_half_way", "behind_at_equal_steps"))
    tiny = half.below and half.low > 1.0 - TINY
    first = {
        "yes": "the gain is tiny" if tiny else "SAM is ahead",
        "no": "SAM is behind",
        "not shown": "no difference is clear",
    }[half.word("below")]
    second = {"yes": "SAM is ahead", "no": "SAM is behind", "not shown": "no difference is clear"}[steps.word("below")]
    return Verdict(
        "B",
        "That is why SAM generalises better.",
        "hardly" if tiny else "no" if not half.below else "yes" if steps.below else "part",
        f"At equal training loss {first}; at equal steps {second}.",
        (f"held-out loss {half} half-way, all settings together", f"{steps} at equal steps with P ≥ 1000"),
        ("generalisation",),
        "All methods end at the optimum of the same data. A lower simplicity bias acts only on the way there, and on "
        "it SAM is slower.",
    )


def _claim_c(factors: Mapping[str, Effect], ratios: Mapping[str, str]) -> Verdict:
    name = "upsampling/late_minority_lowers_ratios"
    half, end = (
        factors[f"generalisation/upsampling_late_{where}"] for where in ("is_ahead_half_way", "hurts_at_the_end")
    )
    bias, way, last = factors[name].word("below"), half.word("below"), end.word("below")
    harm = "; it harms at the end if kept on" if last == "no" else ""
    general = f"not shown half-way{harm}" if way == "not shown" else f"no{harm}"
    if way == "yes":
        general = "half-way and at the end" if last == "yes" else f"only half-way through training{harm}"
    return Verdict(
        "C",
        "Upsampling what is learned late does the same.",
        "yes" if (bias, way, last) == ("yes",) * 3 else "part" if "yes" in (bias, way, last) else "no",
        f"{bias.capitalize()} for simplicity bias under gradient descent; under Adam it depends on signal and noise. "
        f"For generalisation {general}.",
        (
            f"of features 3 and 4: {ratios[name]} at κ = 2",
            f"held-out loss {half} half-way",
            f"{end} at the end with P ≥ 1000",
        ),
        ("overview", "generalisation", "adaptive_optimizers"),
        "Late examples drawn more often are learned sooner, but the optimum moves away from that of the data.",
    )


def _claim_d(studies: Studies, figure: str) -> Verdict:
    found = [gains(studies, setting) for setting in SETTINGS]
    words = [_joint(some) for some in found]
    places = {word: [s.place for s, each in zip(SETTINGS, words, strict=True) if each == word] for word in LISTED}
    small, problems = found[0], found[-1][-2:]
    return Verdict(
        "D",
        "So fine-tuned language models gain.",
        "yes" if set(words) == {"yes"} else "part" if "yes" in words else "no",
        " ".join(f"{word.capitalize()} {_listed(some, LISTED[word])}." for word, some in places.items() if some),
        (
            f"accuracy at 0.1 M {small[0]} (AdamW), {small[1]} (Muon)",
            f"SmolLM2 on word problems {problems[0]}, {problems[1]} (all 95 %)",
        ),
        (figure,),
        "Late examples catch up with early ones in the small decoders. The test of the smallest mostly repeats "
        "problems that it was trained on.",
    )


def _listed(places: Sequence[str], last: str) -> str:
    """Return places as a list in words; `last` stands before the last of several."""
    return places[0] if len(places) == 1 else f"{', '.join(places[:-1])}{last}{places[-1]}"


def _joint(effects: Sequence[Effect]) -> str:
    """Return "yes" or "no" where all effects are clear in one direction, else "not shown"."""
    words = {effect.word("above") for effect in effects}
    return words.pop() if len(words) == 1 else "not shown"
