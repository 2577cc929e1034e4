"""Skip-thoughts in NumPy: one triple after the other, word by word.

Nothing here knows lnrnn but the cells of `references`, which know it neither.
A sentence is a list of words with the end among them, never filled up.
"""

import numpy as np
import references

SIDES = ("previous", "next")


def thought(p, words, how):
  """The encoder's state behind the last word, [h]."""
  h = np.zeros(len(p["encoder"]["gru"]["cell"]["w_h"]))
  for word in words:
    x = p["encoder"]["embeddings"][word]
    h = _step(p["encoder"]["gru"]["cell"], h, x, how)
  return h


def states(p, side, thought, words, how):
  """What foretells each word of a neighbour, [n, h].

  Ba et al. 2016: the sentence is where the decoder starts. Kiros et al. 2015,
  eqs. (5)-(8): each step has it, beside the word before.
  """
  x = np.zeros(p["encoder"]["embeddings"].shape[1])
  h, beside = thought, np.zeros(0)
  if how["condition"] == "each_step":
    h, beside = np.zeros(len(thought)), thought
  found = []
  for word in words:
    h = _step(p[side]["cell"], h, np.concatenate([x, beside]), how)
    found.append(h)
    x = p["encoder"]["embeddings"][word]
  return np.array(found)


def nats(p, state, word):
  """-log of the probability of a word."""
  scores = state @ p["kernel"] + p["bias"]
  top = scores.max()
  return top + np.log(sum(np.exp(s - top) for s in scores)) - scores[word]


def side_nats(p, triple, side, how):
  """The sum over the words of one neighbour, its end counted."""
  known = thought(p, triple["current"], how)
  found = states(p, side, known, triple[side], how)
  return sum(nats(p, h, w) for h, w in zip(found, triple[side], strict=True))


def total(p, triples, how):
  """The sum over both neighbours of all triples."""
  return sum(side_nats(p, t, s, how) for t in triples for s in SIDES)


def triples(batch):
  """The sentences of a batch, without what fills them up."""
  names = ("current", *SIDES)
  return [
    {n: batch[n][i, : batch[f"{n}_length"][i]].tolist() for n in names}
    for i in range(len(batch["current"]))
  ]


def _step(cell, h, x, how):
  form = how.get("form", "separate")
  return references.gru(cell, h[None], x[None], how["norm"], form, how["eps"])[
    0
  ]
