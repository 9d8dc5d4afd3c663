"""The factor of an optimizer brings R to its target by the theory's speeds, or the rule says that no factor does."""

import numpy as np
import pytest

import icl_theory as icl
from icl_theory.errors import InputError
from icl_theory.upsampling.noise_scale import sparse

COUNT, EARLY, LATE = 200, 40.0, 160.0
STEPS = np.arange(0.0, 401.0, 5.0)


def record(late):
    """Losses that fall along straight lines, halved at step 160 for so many late examples, and at 40 for others."""
    halves = np.where(np.arange(COUNT) < late, LATE, EARLY)
    return icl.LossRecord(STEPS, np.clip(1.0 - STEPS[:, None] / (2.0 * halves), 0.0, None))


def upsample(late=10, **settings):
    return icl.upsample(record(late), late=f"quantile={1 - late / COUNT}", **settings)


def ratio(factor, batch, share=0.05):
    """R under a factor, by the speeds of the theory."""
    after = share * factor / (1.0 - share + share * factor)
    speeds = [icl.group_speed(np.array([1.0 - part, part]), batch) for part in (share, after)]
    early, late = speeds[1] / speeds[0]
    return LATE / EARLY * early / late


def test_the_factor_of_adamw_brings_the_ratio_to_its_target():
    for batch in (1, 4):
        found = upsample(optimizer="adamw", batch_size=batch, target=3.0)
        assert ratio(found.factor, batch) == pytest.approx(3.0, rel=1e-4)
        assert found.factor > 4 / 3  # more than SGD's
        assert "R 4 → 3" in found.why


def test_a_target_out_of_reach_takes_the_largest_factor_and_says_what_is_left():
    found = upsample(optimizer="adamw", batch_size=4, max_factor=4.0)
    assert found.factor == pytest.approx(4.0)
    assert f"→ {ratio(4.0, 4):.3g}, the least up to factor 4" in found.why


@pytest.mark.parametrize("batch", [128, 64])
def test_where_no_factor_changes_the_pace_it_says_so_and_what_to_do(batch):
    found = upsample(optimizer="adamw", batch_size=batch)
    assert found.factor == 1
    assert not np.any(found.weights != 1)
    assert f"AdamW in batches of {batch}" in found.why
    assert "if late and early share no feature" in found.why
    assert f"no factor up to 5 lowers R by a tenth (R 4 → {ratio(5.0, batch):.3g})" in found.why
    assert "take more steps on the late, or fresh examples of their kind" in found.why
    assert found.why.endswith("finetune --upsample --noise-scale")  # nothing was measured


def test_a_verdict_by_measured_noise_has_its_interval():
    """No factor is found either way; whether there is none depends on how well noise is known."""
    law, cut = sparse(0.05, COUNT), np.array([0.0, 1.0, 0.0, 1.0, 0.0])[:, None, None]
    for spread, words in (
        (1e-6, f"no factor up to 5 lowers R by a tenth (R 4 → {ratio(5.0, 128):.3g} ("),
        (40, "not known"),
    ):
        measured = law._replace(
            signal=np.repeat(law.signal, 5, axis=1), variance=np.broadcast_to(spread * cut, (1, 5, 2, 2)).copy()
        )
        found = upsample(optimizer="adamw", batch_size=128, noise=measured)
        assert found.factor == 1
        assert words in found.why
        assert "share no feature" not in found.why


def test_half_of_the_examples_late_in_ordinary_batches_is_such_a_case():
    found = upsample(late=100, optimizer="adamw", batch_size=32)
    assert found.factor == 1
    assert "no factor up to 5" in found.why
    assert upsample(late=100, optimizer="adamw", batch_size=32, max_factor=100.0).factor > 10  # the early starve


def test_sgd_is_the_ratio_over_the_target():
    plain = upsample(target=2.0)
    assert upsample(target=2.0, optimizer="sgd")[5:8] == plain[5:8]
    measured = upsample(target=2.0, optimizer="sgd", noise=sparse(0.05, COUNT))
    assert measured.factor == pytest.approx(plain.factor, rel=1e-4)
    assert "measured noise" in measured.why


def test_noise_that_all_share_makes_the_factor_of_adamw_that_of_sgd():
    noise = sparse(0.05, COUNT)._replace(variance=np.full((1, 1, 2, 2), 1e6))
    found = upsample(target=2.0, optimizer="adamw", batch_size=8, noise=noise)
    assert found.factor == pytest.approx(2.0, rel=1e-3)


def test_a_ratio_that_is_low_enough_needs_no_factor():
    found = upsample(target=5.0, optimizer="adamw", batch_size=8)
    assert found.factor == 1
    assert "low enough already" in found.why


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": "adamw"}, "batch_size = 'not given': the law of adamw depends on it"),
        ({"optimizer": "adamw", "batch_size": 0}, "batch_size = 0"),
        ({"optimizer": "adamw", "batch_size": 201}, "batch_size = 201: the set has 200 examples; give at most as many"),
        ({"optimizer": "muon", "batch_size": 8}, "optimizer = 'muon': no law.*by the rule secant"),
        ({"optimizer": "lion", "batch_size": 8}, "optimizer = 'lion': give one of sgd, adamw, muon"),
        ({"optimizer": "sgd", "batch_size": 8}, "batch_size = 8: the law of sgd is the same at any"),
        ({"batch_size": 8}, "batch_size = 8: it belongs to an optimizer"),
        ({"optimizer": "adamw", "batch_size": 8, "factor": 2.0}, "optimizer = 'adamw': the factor is given"),
        ({"optimizer": "adamw", "batch_size": 8, "rule": "excess", "target": 2.0}, "the rule excess"),
        ({"optimizer": "adamw", "batch_size": 8, "noise": sparse(0.5, COUNT)}, "late share 0.5.*here it is 0.05"),
    ],
)
def test_settings_that_have_no_law_or_no_effect_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        upsample(**settings)
