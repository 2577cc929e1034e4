"""Writes with a trained network for handwriting."""

from typing import Any, cast

import jax
import numpy as np

from lnrnn.data import characters, iam_ondb
from lnrnn.errors import ConfigError
from lnrnn.models.handwriting import Handwriting, Text, Written


def shown(written: Written) -> list[np.ndarray]:
  """The points of each line, [t, 3]."""
  pairs = zip(written.ink, written.lengths, strict=True)
  return [np.asarray(line)[:n] for line, n in pairs]


class Sampler:
  """Writes with a trained model.

  Args:
    config: of the run.
    model: of the run.
    data: the run was trained on; its units, and the lines to go on from.
  """

  def __init__(self, config, model: Handwriting, data: iam_ondb.Dataset):
    self._config, self._model, self._data = config, model, data
    self._sample = jax.jit(
      lambda variables, *args, **more: model.apply(
        variables, *args, **more, method="sample"
      ),
      static_argnames=("n", "steps"),
    )

  def inputs(
    self, texts: list[str], *, prime: str | None = None, unknown: str = "map"
  ) -> tuple[Text | None, Any]:
    """What the model is given.

    Args:
      texts: what to write; how many lines, for a model without text.
      prime: name of a real line to go on from, in whose style is written.
      unknown: of `characters.encode`.

    Returns:
      The texts, and what `Handwriting.sample` takes as `prime`.

    Raises:
      ConfigError: a text is empty or, where refused, has characters outside
        the alphabet; there is no such line.
    """
    n = len(texts)
    text = _encoded(texts, unknown) if self._model.window else None
    if prime is None:
      return text, None
    line, said = self._line(prime)
    repeat = lambda a: np.repeat(np.asarray(a)[None], n, axis=0)
    lengths = repeat(np.int32(len(line)))
    return text, (
      repeat(line),
      lengths,
      text and _encoded([f"{said} "] * n, "map"),
    )

  def write(
    self,
    variables: Any,
    inputs: tuple[Text | None, Any],
    key: jax.Array,
    *,
    n: int,
    bias: Any = 0.0,
    points: int | None = None,
  ) -> Written:
    """Writes texts.

    Args:
      variables: of the run.
      inputs: of `inputs`.
      key: of all that is random.
      n: texts.
      bias: of `mixture.mixture`, a number or one for each text.
      points: most points of a line; None is `config.sample_points`.

    Returns:
      What was written, as NumPy arrays.
    """
    variables = {k: v for k, v in variables.items() if k != "carry"}
    text, prime = inputs
    found = self._sample(
      variables,
      key,
      text,
      n=n,
      steps=points or self._config.sample_points,
      bias=np.broadcast_to(np.asarray(bias, np.float32), (n,)),
      prime=prime,
    )
    return jax.device_get(cast(Written, found))

  def units(self, line: np.ndarray) -> np.ndarray:
    """Points [t, 3] in the units of the files, where x and y are alike."""
    offsets = line[:, :2] * self._data.deviation + self._data.mean
    return np.concatenate([offsets, line[:, 2:]], axis=1)

  def _line(self, name: str) -> tuple[np.ndarray, str]:
    for lines in self._data.splits.values():
      found = np.flatnonzero(lines.names == name)
      if len(found):
        return lines.line(found[0]), lines.texts[found[0]]
    first = next(iter(self._data.splits.values())).names
    raise ConfigError(
      f"--prime={name!r}: there is no such line; there are {first[0]},"
      f" {first[1]} and others"
    )


def _encoded(texts: list[str], unknown: str) -> Text:
  codes = [characters.encode(text, unknown) for text in texts]
  lengths = np.array([len(c) for c in codes], np.int32)
  wide = np.zeros((len(codes), lengths.max()), np.uint8)
  for row, c in zip(wide, codes, strict=True):
    row[: len(c)] = c
  return Text(wide, lengths)
