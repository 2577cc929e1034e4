"""The code of a model card: how an exported model of a task is used."""

from collections.abc import Mapping
import json
import string
from typing import Any

import jax
import numpy as np

from lnrnn.variables import Example

# How a model is used that was trained by a task; each runs as it stands.
_USE = {
  "mnist_mlp": """\
import numpy as np

import lnrnn

found = lnrnn.load_exported($folder)
images = np.zeros((2, 28, 28), "uint8")  # Yours: digits, white on black.
x = np.float32(images).reshape(len(images), -1) / 255
logits = found.model.apply(found.variables, x)
print(logits.argmax(axis=-1))
""",
  "sequential_mnist": """\
import numpy as np

import lnrnn

found = lnrnn.load_exported($folder)
how = found.assets["preprocessing"]
images = np.zeros((2, 28, 28), "uint8")  # Yours: digits, white on black.
n, pool = len(images), how["pool"]
x = np.float32(images).reshape(n, 28 // pool, pool, 28 // pool, pool) / 255
x = x.mean(axis=(2, 4)).reshape(n, -1, 1)[:, how["order"]]
logits = found.model.apply(found.variables, x)
print(logits.argmax(axis=-1))
""",
  "convnet": """\
import numpy as np

import lnrnn

found = lnrnn.load_exported($folder)
how = found.assets["preprocessing"]
images = np.zeros((2, $pixels), "uint8")  # Yours, of this size.
x = np.float32(images) - np.float32(how["mean"])
logits = found.model.apply(found.variables, x / np.float32(how["deviation"]))
print([found.assets["classes"][i] for i in logits.argmax(axis=-1)])
""",
  "draw": """\
import jax
import numpy as np
from PIL import Image

import lnrnn
from lnrnn import pictures

found = lnrnn.load_exported($folder)
use, key = found.model.apply, jax.random.key(0)
drawn = use(found.variables, key, 16, method="generate").canvas[-1]
paper = 255 * (1 - pictures.grid(np.asarray(drawn), 4))
Image.fromarray(np.uint8(paper)).save("drawn.png")

# Nats that it takes to tell a picture: the bound on -log p(x).
images = np.uint8(drawn > 0.5)  # Or yours, of 0 and 1.
print(use(found.variables, images, key).bound)
""",
  "handwriting": """\
import jax
import numpy as np

import lnrnn
from lnrnn import ink
from lnrnn.models.handwriting import Text

found = lnrnn.load_exported($folder)
alphabet = found.assets["alphabet"]  # The last sign is for all others.
number = {sign: i for i, sign in enumerate(alphabet)}
text = "Layer norm"
codes = [number.get(sign, len(alphabet) - 1) for sign in text]
written = found.model.apply(
  found.variables,
  jax.random.key(0),
  $text,
  steps=$points,  # Points of a line, at most.
  bias=0.5,  # 0 is as people write; higher is tidier.
  method="sample",
)
line = np.array(written.ink[0, : written.lengths[0]])
line[:, :2] = line[:, :2] * found.assets["deviation"] + found.assets["mean"]
ink.save(ink.figure([line], [text]), "written.png")
""",
  "order_embedding": """\
import numpy as np

import lnrnn
from lnrnn import arrays, ranking
from lnrnn.data import vocabulary

found = lnrnn.load_exported($folder)
how = found.assets["preprocessing"]
known = vocabulary.Vocabulary(tuple(found.assets["vocabulary"]))
captions = ["a dog runs on the beach", "two people in a boat"]
texts = [vocabulary.words(text)[: how["max_words"]] for text in captions]
sentences = vocabulary.Sentences.of(texts, known)
words = sentences.padded(np.arange(len(texts)), sentences.lengths.max())
features = np.ones((1, how["features"]), "float32")  # Yours, of an image.
if how["normalize"]:
  features = arrays.unit(features)

use = found.model.apply
images = use(found.variables, features, method="images")
placed = use(found.variables, words, sentences.lengths, method="sentences")
errors = ranking.errors("order" if found.model.absolute else "cosine")
print(errors(images, placed))  # [images, captions], the less the better.
""",
  "attentive_reader": """\
import numpy as np

import lnrnn
from lnrnn.data import vocabulary

found = lnrnn.load_exported($folder)
known = vocabulary.Vocabulary(tuple(found.assets["vocabulary"]))


def numbers(text):
  # Tokens by blanks. The reader has no sign for the end of a text.
  row = known.encode(text.split())[:-1]
  return np.array([row]), np.array([len(row)])


passage = "@entity1 met @entity2 . @entity0 gave a book to @entity1 ."
query = "@placeholder gave a book to @entity1"
read = found.model.apply(found.variables, *numbers(passage), *numbers(query))
words = [*vocabulary.SPECIAL, *known.words]
print(words[int(read.logits[0].argmax())])
print(*zip(passage.split(), read.attention[0].tolist()))
""",
  "skip_thoughts": """\
import lnrnn

encoder = lnrnn.SkipThoughtEncoder.load($folder)
sentences = ["He opened the door.", "She closed the window."]
print(encoder.unknown(sentences))  # Part of the words that it does not know.
vectors = encoder.encode(sentences)
print(vectors @ vectors.T)  # Cosines.
""",
}


def usage(
  config: Mapping[str, Any], folder: str, example: Example | None
) -> str:
  """Code that loads a model, and does with it what its task does.

  Args:
    config: of the run.
    folder: name of the exported folder.
    example: how the module is called, for a task that is not known here.
  """
  named = json.dumps(folder, ensure_ascii=False)
  code = _USE.get(config["experiment"])
  if code is None:
    return call(named, example)
  first = example.args[0] if example and example.args else None
  # The prediction network knows no text.
  knows = config["model"].get("window", 0)
  return string.Template(code.rstrip()).substitute(
    folder=named,
    pixels=", ".join(map(str, getattr(first, "shape", ())[1:])),
    text="Text(np.array([codes]), np.array([len(codes)]))" if knows else "None",
    points=config.get("sample_points"),
  )


def call(named: str, example: Example | None) -> str:
  """Code that applies a model to zeros of the right shape.

  Args:
    named: the exported folder, as Python.
    example: how the module is called; None if that is not known.
  """
  lines = ["import lnrnn", "", f"found = lnrnn.load_exported({named})"]
  if example is None:
    lines.append("# What found.model.apply takes after found.variables:")
    return "\n".join([*lines, "help(type(found.model).__call__)"])
  given = ["found.variables", *map(_code, example.args)]
  given += [f"{key}={_code(value)}" for key, value in example.kwargs.items()]
  if example.method != "__call__":
    given += [f"method={example.method!r}"]
  if keys := [name for name in example.rngs if name != "params"]:
    drawn = ", ".join(f"{name!r}: jax.random.key(0)" for name in keys)
    given += [f"rngs={{{drawn}}}"]
  applied = f"y = found.model.apply({', '.join(given)})"
  lines.append(applied)
  if "jnp." in applied:
    lines.insert(0, "import jax.numpy as jnp")
  if "jax.random" in applied:
    lines.insert(0, "import jax")
  return "\n".join(lines)


def _code(value: Any) -> str:
  """An argument as Python; arrays are zero."""
  if isinstance(value, jax.ShapeDtypeStruct):
    return f'jnp.zeros({value.shape}, "{np.dtype(value.dtype).name}")'
  if isinstance(value, Mapping):
    pairs = (f"{key!r}: {_code(held)}" for key, held in value.items())
    return f"{{{', '.join(pairs)}}}"
  if isinstance(value, list | tuple):
    return f"({''.join(f'{_code(held)}, ' for held in value)})"
  return repr(value)
