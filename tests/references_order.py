"""Order embeddings in NumPy, word by word and pair by pair.

Nothing here knows lnrnn but the cells of `references`, which know it neither.
"""

import numpy as np
import references


def unit(v):
  """Rows of length 1; a row of zeros stays."""
  lengths = np.sqrt((v**2).sum(axis=1, keepdims=True))
  return np.where(lengths > 0, v / np.where(lengths > 0, lengths, 1), 0)


def images(p, features, absolute=True):
  """Linear, unit length, absolute value."""
  placed = unit(features @ p["image_map"]["kernel"] + p["image_map"]["bias"])
  return np.abs(placed) if absolute else placed


def sentences(p, words, lengths, norm, form, eps, absolute=True):
  """Each sentence by itself, so that there is no padding to speak of."""
  cell = p["encoder"]["cell"]
  last = []
  for row, length in zip(words, lengths, strict=True):
    h = np.zeros((1, cell["w_h"].shape[0]))
    for word in row[:length]:
      h = references.gru(cell, h, p["embeddings"][word][None], norm, form, eps)
    last.append(h[0])
  placed = unit(np.array(last))
  return np.abs(placed) if absolute else placed


def violation(image, caption):
  """Vendrov et al. 2016, eq. (2), with the image below the caption."""
  return sum(max(0.0, c - i) ** 2 for i, c in zip(image, caption, strict=True))


def errors(kind, images, captions):
  """[n, m], pair by pair."""
  one = {"order": violation, "cosine": lambda i, c: -float(i @ c)}[kind]
  return np.array([[one(i, c) for c in captions] for i in images])


def hinge(errors, margin):
  """The sum over all wrong pairs, both ways."""
  total = 0.0
  for i in range(len(errors)):
    for j in range(len(errors)):
      if i != j:
        total += max(0.0, margin - errors[i, j] + errors[i, i])  # Captions.
        total += max(0.0, margin - errors[j, i] + errors[i, i])  # Images.
  return total


def ranks(errors):
  """(of images [m], of captions [n]): sorted lists, ties in the middle."""
  n, m = errors.shape
  k = m // n
  image = []
  for j in range(m):
    own = errors[j // k, j]
    others = [errors[i, j] for i in range(n) if i != j // k]
    image.append(1 + _place(own, others))
  caption = []
  for i in range(n):
    own = min(errors[i, k * i : k * i + k])
    others = [errors[i, j] for j in range(m) if j // k != i]
    caption.append(1 + _place(own, others))
  return np.array(image), np.array(caption)


def _place(own, others):
  lower = sum(e < own for e in others)
  return lower + sum(e == own for e in others) / 2
