"""A generated cloze whose optimum is no error at all.

A passage tells what each of some people did; no two did the same thing to the
same object. The query tells of one of those deeds, less of it at times, and
asks who it was.
"""

from collections.abc import Iterator

from lnrnn.data import cloze
from lnrnn.data.cloze import Question
from lnrnn.data.draws import Draws

SIZES = {"train": 4000, "validation": 500, "test": 500}
DEEDS = 4  # Of a passage.
ENTITIES = 10
_VERBS = ("took", "found", "lost", "sold", "hid", "broke")
_OBJECTS = ("ball", "book", "lamp", "key", "coat", "cup", "ring", "drum")
_COLOURS = ("red", "blue", "green", "white")
_PLACES = ("in the house", "at the river", "on the hill", "by the road")


def gather(sentences: int = 0) -> cloze.Collector:
  """Questions of all splits; always the same.

  Args:
    sentences: as of `cloze.Collector`.
  """
  collector = cloze.Collector(sentences)
  for seed, (split, n) in enumerate(SIZES.items()):
    for question in questions(n, seed):
      collector.add(split, question)
  return collector


def questions(n: int, seed: int) -> Iterator[Question]:
  """Draws questions.

  Args:
    n: how many.
    seed: whole number >= 0; each has questions of its own.

  Yields:
    Questions.
  """
  draws = Draws(0, seed)
  for _ in range(n):
    people = [f"@entity{i}" for i in draws.order(ENTITIES)[:DEEDS]]
    pairs = draws.order(len(_VERBS) * len(_OBJECTS))[:DEEDS].tolist()
    told = []
    for pair in pairs:
      verb, thing = divmod(pair, len(_OBJECTS))
      told.append(
        (
          _VERBS[verb],
          draws.one(_COLOURS),
          _OBJECTS[thing],
          draws.one(_PLACES),
        )
      )
    asked = draws.below(DEEDS)
    verb, colour, thing, place = told[asked]
    query = [cloze.PLACEHOLDER, verb, "the"]
    query += [colour, thing] if draws.below(2) else [thing]
    query += place.split() if draws.below(2) else []
    yield Question(
      [
        [person, verb, "the", colour, thing, *place.split(), "."]
        for person, (verb, colour, thing, place) in zip(
          people, told, strict=True
        )
      ],
      [*query, "."],
      people[asked],
    )
