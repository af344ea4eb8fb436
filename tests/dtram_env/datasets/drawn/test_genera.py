"""Genera: a fifth of the classes alone, half differ in one part, the rest in two."""

import numpy as np
import pytest

from dtram_env.datasets.drawn import PLANS
from dtram_env.datasets.drawn.genera import ACCENTS, INKS, Genera, genera, names
from dtram_env.datasets.drawn.textures import AMPLITUDE, TEXTURES


def table_of(plan: str, num_classes: int) -> Genera:
    chosen = PLANS[plan]
    return genera(num_classes, len(chosen.parts), chosen.singles, chosen.pairs)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("num_classes", [10, 11, 20, 37, 196, 200, 400])
def test_shares_and_species(plan: str, num_classes: int) -> None:
    table = table_of(plan, num_classes)
    assert len(table.genus) == len(table.texture) == num_classes
    assert np.array_equal(np.unique(table.genus), np.arange(len(table.discriminative)))
    by_parts = np.bincount(table.discriminative.sum(axis=1)[table.genus], minlength=3)
    assert len(by_parts) == 3
    assert np.abs(by_parts / num_classes - [0.2, 0.5, 0.3]).max() < 3.5 / num_classes
    for g, discriminative in enumerate(table.discriminative):
        textures = table.texture[table.genus == g]
        # A species defines the textures of the discriminative parts, and no others.
        assert np.array_equal(textures >= 0, np.broadcast_to(discriminative, textures.shape))
        assert textures.max() < TEXTURES
        assert len(np.unique(textures, axis=0)) == len(textures)
        if discriminative.sum() == 2:
            # Every texture of the one part goes with every texture of the other.
            seen = [np.unique(column) for column in textures[:, discriminative].T]
            assert sorted(len(s) for s in seen) == [2, 3] and len(textures) == 6
            assert tuple(np.flatnonzero(discriminative)) in {
                tuple(sorted(pair)) for pair in PLANS[plan].pairs
            }
        else:
            assert len(textures) == 1 if not discriminative.any() else len(textures) in (2, 3)


@pytest.mark.parametrize("plan", PLANS)
def test_every_part_is_discriminative_in_the_full_profile(plan: str) -> None:
    table = table_of(plan, 200)
    one = table.discriminative[table.discriminative.sum(axis=1) == 1]
    assert np.ptp(one.sum(axis=0)) <= 1


def test_genera_differ_in_colour() -> None:
    table = table_of("birds", 200)
    look = table.colours[:, [INKS.index(name) for name in ("body", "head", "accent")]]
    apart = np.abs(look[:, None] - look[None]).sum(axis=(2, 3))
    assert apart[~np.eye(len(look), dtype=bool)].min() > 60


def test_discriminative_parts_have_room_for_their_textures() -> None:
    """Dots reach the square root of two times the amplitude each way."""
    accents, reach = np.array(ACCENTS), 2**0.5 * AMPLITUDE
    assert accents.min() - reach > 0 and accents.max() + reach < 255


@pytest.mark.parametrize("num_classes", [20, 200, 400])
def test_names(num_classes: int) -> None:
    plan, table = PLANS["birds"], table_of("birds", num_classes)
    found = names(table, plan.stems, plan.parts)
    assert len(set(found)) == num_classes
    stems = [name.split(",")[0] for name in found]
    assert len(set(stems)) == len(table.discriminative)
    for name, row in zip(found, table.texture, strict=True):
        assert name.count(",") == (row >= 0).sum()
