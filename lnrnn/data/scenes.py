"""Generated images and captions with a real order between them.

A scene has two or three things, each with a size, a colour and a kind; kinds
are dogs, which are animals, and so on. A caption tells a part of it, in words
as special or as general as it likes. So it is true of many scenes, and the
fewer it is true of the more it says: the order that the embedding is to find.
The features of a scene say all that is true of it, mixed at random, with noise.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lnrnn.data.draws import Draws
from lnrnn.data.image_captions import CAPTIONS, Split

SIZES = {"train": 2000, "validation": 500, "test": 500}
WIDTH = 96  # Of the features.
_CLASSES = {
  "animal": ("dog", "cat", "horse", "bird", "sheep"),
  "person": ("man", "woman", "boy", "girl"),
  "vehicle": ("car", "bus", "bike", "boat"),
  "toy": ("ball", "kite", "doll"),
}
_KINDS = {kind: c for c, kinds in _CLASSES.items() for kind in kinds}
_SIZES = ("small", "big", "tall")
_COLOURS = ("red", "blue", "green", "white", "black", "brown")
_PLACES = ("on the grass", "in the street", "at the beach", "in the snow")
# Features and their noise are sums of whole numbers, so that they have the same
# bits on every machine.
_SCALE, _NOISE = 256, 32


class Thing(NamedTuple):
  """One thing of a scene."""

  size: str
  colour: str
  kind: str


class Scene(NamedTuple):
  """What there is to be said."""

  things: tuple[Thing, ...]
  place: str


def load() -> dict[str, Split]:
  """The splits; always the same."""
  facts = {fact: i for i, fact in enumerate(_all_facts())}
  mixing = Draws(0).signed((len(facts), WIDTH), _SCALE)
  splits = {}
  for seed, (name, n) in enumerate(SIZES.items(), 1):
    draws, names, features, captions = Draws(seed), [], [], []
    for i in range(n):
      scene = _scene(draws)
      names.append(f"{name}-{i:04d}")
      true = [facts[fact] for fact in _facts(scene)]
      mixed = mixing[true].sum(axis=0) + draws.signed((WIDTH,), _NOISE)
      features.append(np.maximum(mixed, 0) / _SCALE)
      captions += [_caption(scene, draws) for _ in range(CAPTIONS)]
    splits[name] = Split(names, np.array(features, np.float32), captions)
  return splits


def _scene(draws: Draws) -> Scene:
  things = tuple(
    Thing(draws.one(_SIZES), draws.one(_COLOURS), draws.one(tuple(_KINDS)))
    for _ in range(2 + draws.below(2))
  )
  return Scene(things, draws.one(_PLACES))


def _all_facts() -> Iterator[str]:
  yield from _PLACES
  for name in (*_CLASSES, *_KINDS):
    yield name
    for adjective in (*_SIZES, *_COLOURS):
      yield f"{adjective} {name}"


def _facts(scene: Scene) -> set[str]:
  """All that is true of a scene, of the sort that features tell."""
  found = {scene.place}
  for thing in scene.things:
    for name in (thing.kind, _KINDS[thing.kind]):
      found |= {name, f"{thing.size} {name}", f"{thing.colour} {name}"}
  return found


def _caption(scene: Scene, draws: Draws) -> str:
  """A part of a scene in words, of one thing at least."""
  said = [_noun_phrase(thing, draws) for thing in scene.things]
  first = draws.below(len(said))
  said = said[first : first + 1 + draws.below(len(said) - first)]
  text = " and ".join(said)
  return f"{text} {scene.place}" if draws.below(2) else text


def _noun_phrase(thing: Thing, draws: Draws) -> str:
  # More often special than general.
  name = draws.one((thing.kind, thing.kind, _KINDS[thing.kind]))
  words = [word for word in (thing.size, thing.colour) if draws.below(2)]
  words.append(name)
  article = "an" if words[0][0] in "aeiou" else "a"
  return " ".join([article, *words])
