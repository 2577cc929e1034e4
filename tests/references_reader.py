"""The attentive reader in NumPy, question by question and word by word.

Nothing here knows lnrnn but the cells of `references`, which know it neither.
Batch norm is by given statistics: {site: (mean, var)} of each time step.
"""

import numpy as np
import references
import references_bn


def states(p, rows, norm, form, eps, moments=None):
  """States [t, h] of an LSTM at all words x [t, d] of one text."""
  cell = p["cell"]
  h0 = p["initial_h"][None]
  carry, found = (np.zeros_like(h0), h0), []
  for t, x in enumerate(rows):
    if moments is None:
      carry = references.lstm(cell, carry, x[None], norm, form, eps)
    else:

      def by_population(site, a, affine, t=t):
        mean, var = (m[min(t, len(m) - 1)] for m in moments[site])
        return references_bn.normalised(a, affine, mean, var, eps)

      carry = references_bn.lstm_step(cell, carry, x[None], by_population, form)
    found.append(carry[1][0])
  return np.array(found)


def term(p, x, norm, eps, moments=None):
  """A linear map of rows [n, h], and its norm if it has one."""
  kernel = p["layer"]["kernel"]
  if norm == "weight" and "norm" in p:
    kernel = references.weight_normalised(kernel, p["norm"]["gain"])
  a = x @ kernel + p["layer"].get("bias", 0)
  if "norm" not in p:
    return a
  if norm == "weight":
    return a + p["norm"].get("bias", 0)
  if norm == "batch":
    return references_bn.normalised(a, p["norm"], *moments, eps)
  return references.normalised(norm, a, p["norm"], eps)


def answer(p, passage, query, how, statistics=None):
  """Scores [v] and attention [t] for one passage and one query.

  Args:
    p: parameters.
    passage: [t] numbers of words, all of them counting.
    query: [s] likewise.
    how: norm, form, eps, similarity, skip and bidirectional of the model.
    statistics: for batch norm, {"passage_reader": {site: (mean, var)}, ...,
      "passage_term": (mean, var), ...}.
  """
  norm, form, eps = how["norm"], how["form"], how["eps"]
  of = (statistics or {}).get

  def read(name, text):
    x = p["embeddings"][text]
    if not how["bidirectional"]:
      found = states(p[name], x, norm, form, eps, of(name))
      return found[-1], found
    ahead = states(p[f"{name}_ahead"], x, norm, form, eps)
    back = states(p[f"{name}_back"], x[::-1], norm, form, eps)
    last = np.concatenate([ahead[-1], back[-1]])
    return last, np.concatenate([ahead, back[::-1]], axis=1)

  _, words = read("passage_reader", passage)
  asked, _ = read("query_reader", query)
  rows = asked[None]
  mapped = lambda name, x: term(p[name], x, norm, eps, of(name))
  a = mapped("passage_term", words) + mapped("query_term", rows)
  if how["similarity"]:
    b = p["similarity_map"]["kernel"]
    alike = np.array([(word @ b) @ (asked @ b) for word in words])
    a = a + alike[:, None]
  score = (np.tanh(a) @ p["score"]["kernel"])[:, 0]
  weight = np.exp(score - score.max())
  weight /= weight.sum()
  context = sum(w * h for w, h in zip(weight, words, strict=True))[None]
  a = mapped("context_out", context) + mapped("query_out", rows)
  if how["skip"]:
    a = a + mapped("mean_out", words.mean(axis=0, keepdims=True))
  scores = np.tanh(a)[0] @ p["answer"]["kernel"] + p["answer"]["bias"]
  return scores, weight


def nll(scores, right):
  """-log of the softmax."""
  return (
    np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[right]
  )
