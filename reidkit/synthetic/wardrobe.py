"""Identities: body, clothes and accessories.

Garments come from a small common wardrobe, so that people share most of their clothes and differ in
details: shoes, bag, hair, scarf, a print.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from reidkit.synthetic import tuning

Colour = tuple[float, float, float]
"""sRGB in [0, 1]."""

Pattern = Literal["plain", "stripes", "checks", "print", "columns"]
Hair = Literal["bald", "short", "bob", "long", "ponytail", "bun"]
Hat = Literal["cap", "beanie", "brim"]
BagKind = Literal["backpack", "shoulder", "hand"]


@dataclass(frozen=True)
class Fabric:
    """Colour and pattern of a garment.

    Attributes:
        second: second colour of the pattern.
        period: of stripes, columns and checks, in body heights.
        art: seed of a print's motif.
    """

    colour: Colour
    second: Colour = (0.5, 0.5, 0.5)
    pattern: Pattern = "plain"
    period: float = 0.05
    art: int = 0


@dataclass(frozen=True)
class Shoes:
    colour: Colour
    sole: Colour
    boots: bool = False


@dataclass(frozen=True)
class Bag:
    kind: BagKind
    colour: Colour
    size: float = 1.0
    side: int = 1
    """+1 is the person's left."""


@dataclass(frozen=True)
class Identity:
    """A person with their clothes.

    Attributes:
        girth, shoulders, hips, head: sizes relative to the average build of equal height.
        outfit: garment on torso and legs; `lower` is unused for dresses and jumpsuits.
        sleeve: covered fraction of the arm.
        hem: fraction of the leg covered by trousers, shorts, skirt or dress.
        coat_hem: lower edge of the coat in body heights above the ground (0.34 long, 0.49 jacket).
        sock: covered fraction of the shin.
        fit: distance of the shirt from the body in body heights; `leg_fit`: width of the trousers.
        shirt_hem: lower edge of the shirt in body heights above the ground.
        neckline: depth of the neckline in body heights; `buttons`: a seam down the front.
    """

    girth: float
    shoulders: float
    hips: float
    head: float
    skin: Colour
    hair: Hair
    hair_colour: Colour
    outfit: Literal["trousers", "shorts", "skirt", "dress", "jumpsuit"]
    upper: Fabric
    lower: Fabric
    sleeve: float
    hem: float
    shoes: Shoes
    socks: Colour
    sock: float
    fit: float = 0.005
    leg_fit: float = 1.1
    shirt_hem: float = 0.515
    neckline: float = 0.02
    buttons: bool = False
    coat: Fabric | None = None
    coat_hem: float = 0.45
    hat: Hat | None = None
    hat_colour: Colour = (0.2, 0.2, 0.2)
    glasses: Colour | None = None
    scarf: Colour | None = None
    gloves: Colour | None = None
    bag: Bag | None = None


def _colours(text: str) -> tuple[Colour, ...]:
    """Colours from hexadecimal rrggbb."""
    words = [bytes.fromhex(word) for word in text.split()]
    return tuple((r / 255, g / 255, b / 255) for r, g, b in words)


SKINS = _colours("deb299 d1a385 c29173 9e7054 6b4a38")
HAIRS = _colours("171414 211a17 38261a 5c4026 9e8052 8c8a87 6b331f")
HAIR_ODDS = (0.34, 0.24, 0.16, 0.09, 0.06, 0.07, 0.04)
# The wardrobe: few muted colours, the most common first.
TOPS = _colours(
    "e0e0db 212124 787a80 2b385c 992b2e 6b8cb2 c2ad8f 405e47 cc9ea8 ccb04c 734f70 5c9e99 c76b38"
)
TOP_ODDS = (0.19, 0.17, 0.12, 0.10, 0.08, 0.08, 0.06, 0.05, 0.05, 0.03, 0.03, 0.02, 0.02)
BOTTOMS = _colours("242429 3d4c70 5c6e8c 707073 9e8c70 574a3d ccc9c2 803338")
BOTTOM_ODDS = (0.27, 0.24, 0.14, 0.11, 0.10, 0.06, 0.05, 0.03)
COATS = _colours("1f1f21 2e364c 948061 616163 4c573d 80292b c7c2b8 3d5785")
SHOES = _colours("1a1a1c e6e6e0 66472e 73757a a8292b 334785 db8c33 c7b28f")
SHOE_ODDS = (0.27, 0.23, 0.12, 0.1, 0.09, 0.08, 0.05, 0.06)
BAGS = _colours("1c1c1f 593b26 9e262b 2e4075 6b6e70 ccbd9e 406b4c d19438 b8738c")
BAG_ODDS = (0.24, 0.14, 0.12, 0.13, 0.1, 0.09, 0.07, 0.06, 0.05)
ACCENTS = _colours("9e2429 d9d4c7 292b33 bd9e4c 425c94 808085 527a5c 9e6b8f")


def sample_identity(rng: np.random.Generator) -> Identity:
    """Samples a person; the same generator state gives the same person."""
    feminine = rng.random() < 0.48
    hair = _hair(rng, feminine)
    outfit = _outfit(rng, feminine)
    odds = tuning.ACCESSORY_ODDS
    upper = _fabric(rng, TOPS, TOP_ODDS)
    lower = _fabric(rng, BOTTOMS, BOTTOM_ODDS, plain=outfit in ("trousers", "shorts"))
    if outfit in ("dress", "jumpsuit"):
        lower = upper
    coat = _coat(rng) if rng.random() < odds["coat"] else None
    return Identity(
        girth=float(np.clip(rng.normal(0.95 if feminine else 1.04, 0.09), 0.8, 1.32)),
        shoulders=float(np.clip(rng.normal(0.91 if feminine else 1.04, 0.04), 0.82, 1.15)),
        hips=float(np.clip(rng.normal(1.06 if feminine else 0.97, 0.04), 0.88, 1.2)),
        head=float(np.clip(rng.normal(1.0, 0.04), 0.9, 1.12)),
        skin=_jitter(rng, SKINS[_pick(rng, (0.34, 0.3, 0.18, 0.1, 0.08))]),
        hair=hair,
        hair_colour=_jitter(rng, HAIRS[_pick(rng, HAIR_ODDS)]),
        outfit=outfit,
        upper=upper,
        lower=lower,
        sleeve=float(rng.choice([0.0, 0.28, 0.42, 0.7, 1.0], p=[0.06, 0.34, 0.12, 0.06, 0.42])),
        hem=_hem(rng, outfit),
        shoes=_shoes(rng),
        socks=_jitter(rng, ACCENTS[int(rng.integers(len(ACCENTS)))]),
        sock=float(rng.choice([0.12, 0.3, 0.75], p=[0.55, 0.3, 0.15])),
        fit=float(rng.uniform(0.0, 0.016)),
        leg_fit=float(rng.uniform(0.9, 1.35)),
        shirt_hem=float(rng.uniform(0.485, 0.56)),
        neckline=float(rng.choice([0.012, 0.03, 0.065])),
        buttons=bool(rng.random() < 0.3),
        coat=coat,
        coat_hem=float(rng.choice([0.49, 0.44, 0.34], p=[0.45, 0.3, 0.25])),
        hat=(
            ("cap", "beanie", "brim")[_pick(rng, (0.6, 0.25, 0.15))]
            if rng.random() < odds["hat"]
            else None
        ),
        hat_colour=_jitter(rng, ACCENTS[int(rng.integers(len(ACCENTS)))]),
        glasses=(0.07, 0.07, 0.08) if rng.random() < odds["glasses"] else None,
        scarf=(
            _jitter(rng, ACCENTS[int(rng.integers(len(ACCENTS)))])
            if rng.random() < odds["scarf"]
            else None
        ),
        gloves=(
            _jitter(rng, ACCENTS[int(rng.integers(len(ACCENTS)))])
            if rng.random() < odds["gloves"]
            else None
        ),
        bag=_bag(rng, feminine) if rng.random() < odds["bag"] else None,
    )


def _pick(rng: np.random.Generator, odds: tuple[float, ...]) -> int:
    p = np.asarray(odds)
    return int(rng.choice(len(p), p=p / p.sum()))


def _jitter(rng: np.random.Generator, colour: Colour) -> Colour:
    r, g, b = np.clip(
        np.asarray(colour) * (1 + rng.normal(0, tuning.COLOUR_JITTER))
        + rng.normal(0, tuning.COLOUR_JITTER / 2, 3),
        0.04,
        0.95,
    )
    return float(r), float(g), float(b)


def _fabric(
    rng: np.random.Generator,
    colours: tuple[Colour, ...],
    odds: tuple[float, ...],
    *,
    plain: bool = False,
) -> Fabric:
    colour = _jitter(rng, colours[_pick(rng, odds)])
    second = ACCENTS[int(rng.integers(len(ACCENTS)))]
    if sum(abs(a - b) for a, b in zip(colour, second, strict=True)) < 0.5:
        second = (0.12, 0.12, 0.14) if sum(colour) > 1.4 else (0.86, 0.85, 0.82)
    names = list(tuning.PATTERN_ODDS)
    pattern = names[_pick(rng, tuple(tuning.PATTERN_ODDS.values()))]
    period = float(rng.choice([0.032, 0.05, 0.085]))
    art = int(rng.integers(1 << 30))
    return Fabric(colour, second, "plain" if plain else pattern, period, art)  # type: ignore[arg-type]  # the table's keys


def _coat(rng: np.random.Generator) -> Fabric:
    colour = _jitter(rng, COATS[_pick(rng, (0.27, 0.18, 0.13, 0.13, 0.09, 0.07, 0.06, 0.07))])
    check = rng.random() < 0.12
    return Fabric(
        colour, ACCENTS[int(rng.integers(len(ACCENTS)))], "checks" if check else "plain", 0.07
    )


def _hair(rng: np.random.Generator, feminine: bool) -> Hair:
    styles: tuple[Hair, ...] = ("bald", "short", "bob", "long", "ponytail", "bun")
    odds = (0, 0.12, 0.22, 0.32, 0.24, 0.1) if feminine else (0.07, 0.83, 0.05, 0.03, 0.02, 0)
    return styles[_pick(rng, odds)]


def _outfit(
    rng: np.random.Generator, feminine: bool
) -> Literal["trousers", "shorts", "skirt", "dress", "jumpsuit"]:
    odds = (0.48, 0.17, 0.14, 0.17, 0.04) if feminine else (0.7, 0.27, 0, 0, 0.03)
    kinds = ("trousers", "shorts", "skirt", "dress", "jumpsuit")
    return kinds[_pick(rng, odds)]  # type: ignore[return-value]  # mypy widens the tuple's literals


def _hem(rng: np.random.Generator, outfit: str) -> float:
    low, high = {"shorts": (0.3, 0.52), "skirt": (0.3, 0.75), "dress": (0.3, 0.8)}.get(
        outfit, (0.93, 0.98)
    )
    return float(rng.uniform(low, high))


def _shoes(rng: np.random.Generator) -> Shoes:
    colour = _jitter(rng, SHOES[_pick(rng, SHOE_ODDS)])
    pale = rng.random() < 0.55
    return Shoes(colour, (0.85, 0.85, 0.82) if pale else (0.12, 0.11, 0.1), rng.random() < 0.12)


def _bag(rng: np.random.Generator, feminine: bool) -> Bag:
    odds = (0.3, 0.42, 0.28) if feminine else (0.58, 0.27, 0.15)
    kinds: tuple[BagKind, ...] = ("backpack", "shoulder", "hand")
    return Bag(
        kinds[_pick(rng, odds)],
        _jitter(rng, BAGS[_pick(rng, BAG_ODDS)]),
        float(rng.uniform(0.8, 1.2)),
        int(rng.choice([-1, 1])),
    )
