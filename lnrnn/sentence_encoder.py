"""Sentences as vectors, by a trained skip-thoughts model."""

from collections.abc import Iterator, Mapping, Sequence
import functools
import hashlib
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lnrnn import arrays, export, interop
from lnrnn.data import batches, prose, text_files, vocabulary
from lnrnn.data.vocabulary import END, SPECIAL, UNKNOWN
from lnrnn.data.word_vectors import WordVectors
from lnrnn.errors import DataError, UserError
from lnrnn.models.skip_thoughts import SentenceEncoder, SkipThoughts

_LONG = 100  # Words; longer texts are encoded one by one.


class SkipThoughtEncoder(NamedTuple):
  """Encodes sentences.

  Attributes:
    model: reads vectors of words.
    variables: of it.
    words: those that have vectors, in the order of `vectors` after the two
      special ones.
    vectors: float32 [v, d], of the end, of an unknown word, and of `words`.
  """

  model: SentenceEncoder
  variables: Mapping[str, Any]
  words: tuple[str, ...]
  vectors: np.ndarray

  @classmethod
  def of(
    cls,
    model: SkipThoughts | SentenceEncoder,
    variables: Mapping[str, Any],
    assets: Mapping[str, Any],
    where: object = "the model",
  ) -> "SkipThoughtEncoder":
    """The encoder of a trained model.

    Args:
      model: whole, or its encoder alone.
      variables: of it.
      assets: "vocabulary", its words, and "preprocessing" with the digest of
        them, if it is known.
      where: what to call it in messages.

    Raises:
      DataError: the vocabulary is not the model's.
    """
    if isinstance(model, SkipThoughts):
      model = model.sentence_encoder()
      if not all("encoder" in of for of in variables.values()):
        raise DataError(f"{where}: its variables have no encoder")
      variables = {name: of["encoder"] for name, of in variables.items()}
    words = vocabulary_of(assets, where)
    vectors = np.asarray(variables["params"]["embeddings"], np.float32)
    if len(vectors) != len(words) + len(SPECIAL):
      raise DataError(
        f"{where}: its vocabulary has {len(words):,} words, and the model"
        f" {len(vectors) - len(SPECIAL):,}: it is of another model"
      )
    return cls(model, variables, tuple(words), vectors)

  @classmethod
  def load(cls, folder: str | os.PathLike[str]) -> "SkipThoughtEncoder":
    """The encoder of a folder that `scripts/export.py` has written.

    Raises:
      DataError: it is damaged, or of another kind of model.
    """
    found = export.load(folder)
    if not isinstance(found.model, SkipThoughts | SentenceEncoder):
      raise DataError(
        f"{folder}: holds a {type(found.model).__name__}; sentences are encoded"
        " by a SkipThoughts"
      )
    return cls.of(found.model, found.variables, found.assets, folder)

  @classmethod
  def from_authors_npz(
    cls, path: str | os.PathLike[str], words: str | os.PathLike[str]
  ) -> "SkipThoughtEncoder":
    """The encoder of an .npz file of the authors' Theano code.

    Args:
      path: such as lngru_may13_1700000.npz, with Wemb [v, d] and encoder_*.
      words: a text file with the model's words, a line each, from number 2
        on; number 0 is the end and 1 an unknown word. The authors never gave
        the list of the model they published.

    Raises:
      DataError: a file is missing, damaged, or they do not fit.

    Source: ryankiros/layer-norm (skip-thoughts); the numbers of words as in
    `worddict` of ryankiros/skip-thoughts, training/vocab.py.
    """
    cell = interop.from_authors_npz(path, "encoder", kind="gru").cell
    table = arrays.load_npz(path, ["Wemb"])["Wemb"]
    d, h = cell["w_x"].shape[0], cell["w_h"].shape[0]
    if table.ndim != 2 or table.shape[1] != d or table.dtype.kind != "f":
      raise DataError(
        f"{path}: Wemb is {table.dtype}{list(table.shape)}; expected floats"
        f" [v, {d}], as encoder_W has {d} rows"
      )
    listed = text_files.lines(words)
    if len(listed) + len(SPECIAL) != len(table):
      raise DataError(
        f"{words}: has {len(listed):,} words; {path} has"
        f" {len(table) - len(SPECIAL):,} beside the two special ones"
      )
    if len(set(listed)) < len(listed):
      raise DataError(f"{words}: a word is there twice")
    model = SentenceEncoder(
      vocabulary=len(table), features=h, word_features=d, form="authors"
    )
    params = {
      "embeddings": jnp.asarray(table, jnp.float32),
      "gru": {"cell": cell},
    }
    return cls.of(model, {"params": params}, {"vocabulary": listed}, path)

  def expanded(self, of: WordVectors) -> "SkipThoughtEncoder":
    """The encoder with vectors for more words.

    A linear map, by least squares over the words that both have, takes word
    vectors into the model's space. A word that the model has keeps its own.

    Args:
      of: vectors of many words.

    Raises:
      DataError: both share no more words than the map has rows.
      UserError: scikit-learn is not installed.

    Source: Kiros et al. 2015, section 2.2.
    """
    try:
      from sklearn.linear_model import LinearRegression
    except ImportError as e:
      raise UserError(
        "words are mapped by the package scikit-learn: pip install scikit-learn"
      ) from e
    own = {word: i for i, word in enumerate(self.words, len(SPECIAL))}
    pairs = [(i, own[w]) for i, w in enumerate(of.words) if w in own]
    if len(pairs) <= of.vectors.shape[1] + 1:
      raise DataError(
        f"{len(pairs)} of the model's {len(own):,} words have word vectors; a"
        f" map of {of.vectors.shape[1]} dimensions needs more"
      )
    there, here = np.array(pairs).T
    fitted = LinearRegression().fit(of.vectors[there], self.vectors[here])
    new = [i for i, word in enumerate(of.words) if word not in own]
    placed = fitted.predict(of.vectors[new]) if new else self.vectors[:0]
    return self._replace(
      words=(*self.words, *(of.words[i] for i in new)),
      vectors=np.concatenate([self.vectors, placed.astype(np.float32)]),
    )

  def encode(
    self,
    sentences: Sequence[str],
    *,
    batch_size: int = 64,
    end: bool = True,
    normalized: bool = True,
  ) -> np.ndarray:
    """Sentences as vectors.

    Args:
      sentences: n texts.
      batch_size: sentences that are encoded together.
      end: whether the end of a sentence is read as a word, as in training;
        the authors read it for SICK, and not for the classifications.
      normalized: to length 1; a sentence of which nothing is read stays zero.

    Returns:
      float32 [n, h], in the order of the sentences.

    Raises:
      TypeError: for what is no list of texts.
      ValueError: the batch size is not 1 or more.
    """
    if batch_size < 1:
      raise ValueError(f"encode: batch_size={batch_size} is not 1 or more")
    single = isinstance(sentences, str)
    sentences = list(sentences)
    if single or not all(isinstance(s, str) for s in sentences):
      raise TypeError("encode: a list of texts is needed, ['a sentence', ...]")
    numbers = self.numbers(map(tokens, sentences), end=end)
    n = len(numbers)
    # Few are filled up to a power of two, so that few shapes are compiled.
    size = min(batch_size, 1 << max(0, n - 1).bit_length())
    numbers += [[]] * max(0, size - n)
    out = np.zeros((len(numbers), self.model.features), np.float32)
    lengths = np.array([len(row) for row in numbers], np.int32)
    for own in _alike(lengths, size) if n else ():
      steps = vocabulary.rounded(max(1, lengths[own].max()), 10)
      padded = np.full((steps, len(own)), END, np.int64)
      for i, row in enumerate(own.tolist()):
        padded[: lengths[row], i] = numbers[row]
      x = self.vectors[padded]  # [t, b, d]: the table may not fit a device.
      out[own] = _encode(self.model, self.variables, x, lengths[own])
    return arrays.unit(out[:n]) if normalized else out[:n]

  def numbers(self, of: Any, *, end: bool = True) -> list[list[int]]:
    """The numbers of the words of sentences in tokens."""
    known = _numbers(self.words)
    last = [END] if end else []
    return [[*(known.get(w, UNKNOWN) for w in row), *last] for row in of]

  def unknown(self, sentences: Sequence[str]) -> float:
    """Part of the words of some texts that have no vector of their own."""
    rows = self.numbers(map(tokens, sentences), end=False)
    found = [number for row in rows for number in row]
    return float(np.mean(np.array(found) == UNKNOWN)) if found else 0.0


def _alike(lengths: np.ndarray, size: int) -> Iterator[np.ndarray]:
  """Positions of sentences of like length, `size` together; long ones alone."""
  order = np.argsort(lengths, kind="stable")
  # So that the memory that is needed does not grow with one long text.
  short = int(np.searchsorted(lengths[order], _LONG, side="right"))
  for rows, _ in batches.blocks(short, min(size, short)) if short else ():
    yield order[rows]
  yield from order[short:, None]


@functools.lru_cache(maxsize=2)
def _numbers(words: tuple[str, ...]) -> dict[str, int]:
  return {word: i for i, word in enumerate(words, len(SPECIAL))}


def _apply(model, variables, x, lengths):
  return model.apply(variables, x, lengths, method="of_vectors")


_encode = jax.jit(_apply, static_argnums=0)


def vocabulary_of(assets: Mapping[str, Any], where: object) -> list[str]:
  """The words of a model's assets.

  Args:
    assets: as of `SkipThoughtEncoder.of`.
    where: what to call the model in messages.

  Raises:
    DataError: there are none, or not those of the training.
  """
  words = assets.get("vocabulary")
  if not isinstance(words, list) or not all(type(w) is str for w in words):
    raise DataError(f"{where}: has no vocabulary, a list of words")
  about = assets.get("preprocessing")
  known = about.get("vocabulary_sha256") if isinstance(about, dict) else None
  if known is not None and known != digest(words):
    raise DataError(
      f"{where}: its vocabulary has other words than those of the training:"
      " it is of another model"
    )
  return words


def tokens(sentence: str) -> list[str]:
  """The words of a text as the model reads them; see `data.prose.tokens`."""
  return prose.tokens(sentence.lower())


def digest(words: Sequence[str]) -> str:
  """Names a vocabulary: a sha256 over its words, a line each."""
  return hashlib.sha256("".join(f"{w}\n" for w in words).encode()).hexdigest()
