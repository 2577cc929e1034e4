"""Questions as arrays: sentences chosen, words numbered, errors, batches."""

import collections
import math
import random

import numpy as np
import pytest

from lnrnn.data import batches, cloze, cloze_examples
from lnrnn.data.cloze import Collector, Examples, Question, top_sentences
from lnrnn.data.cloze_batches import ClozeBatches
from lnrnn.data.vocabulary import Sentences
from lnrnn.errors import ConfigError, DataError


def asked(passage, query, answer):
  """A question of texts; | parts sentences."""
  sentences = [part.split() for part in passage.split("|")]
  return Question([s for s in sentences if s], query.split(), answer)


def gather(train=(), validation=None, test=None, sentences=0):
  """Arrays of lists of questions."""
  spare = [asked("@entity0 x", "@placeholder x", "@entity0")]
  collector = Collector(sentences)
  for split, own in (
    ("train", train),
    ("validation", spare if validation is None else validation),
    ("test", spare if test is None else test),
  ):
    for question in own:
      collector.add(split, question)
  return collector.arrays()


def made(*questions, **options):
  """A data set of lists of questions."""
  return cloze.dataset(
    gather(*questions), origin="made up", verdict="a test", **options
  )


def rows(sentences):
  """Each sequence as a list of numbers."""
  return [
    sentences.tokens[a:b].tolist()
    for a, b in zip(sentences.starts[:-1], sentences.starts[1:], strict=True)
  ]


def texts(data, sentences):
  """Each sequence as a text."""
  known = ("<eos>", "<unk>", *data.vocabulary.words)
  return [" ".join(known[i] for i in row) for row in rows(sentences)]


# --- The sentences that match best ---

HAND = ["a b c d", "a x", "b b b b", "q"]


@pytest.mark.parametrize(
  ("query", "most", "expected"),
  [
    # a and b are in two of four each, and count ln(5 / 2) = 0.916; the scores
    # are 2 * 0.916 / 2, 0.916 / 1.414, 0.916 / 2 and 0.
    ("a b @placeholder", 1, [0]),
    ("a b @placeholder", 2, [0, 1]),
    ("a b @placeholder", 3, [0, 1, 2]),
    # q counts ln 5 = 1.609 over 1, and x the same over the root of 2.
    ("q x b", 1, [3]),
    ("q x b", 2, [1, 3]),
    # Nothing matches, so that the last ones count.
    ("z @placeholder", 2, [2, 3]),
    ("", 1, [3]),
    ("b b b b", 4, [0, 1, 2, 3]),
    ("b b b b", 9, [0, 1, 2, 3]),
  ],
)
def test_sentences_are_chosen_as_by_hand(query, most, expected):
  sentences = [text.split() for text in HAND]
  assert top_sentences(sentences, query.split(), most) == expected


def test_of_equals_the_later_sentence_counts():
  sentences = [["a", "b"], ["b", "a"], ["a", "c"], ["d"]]
  assert top_sentences(sentences, ["a"], 1) == [2]
  assert top_sentences(sentences, ["a"], 2) == [1, 2]
  assert top_sentences(sentences, ["a", "b"], 1) == [1]


def test_a_placeholder_matches_nothing():
  sentences = [["@placeholder", "b"], ["a"], ["c"]]
  assert top_sentences(sentences, ["@placeholder", "a"], 2) == [1, 2]


def test_a_passage_or_a_sentence_without_words_does_no_harm():
  assert top_sentences([], ["a"], 4) == []
  assert top_sentences([[], ["a"], []], ["a"], 1) == [1]


def slow_top(sentences, query, most):
  """Straight from the definition, word by word."""
  n, scored = len(sentences), []
  for i, sentence in enumerate(sentences):
    score = 0.0
    for word in sorted(set(query)):
      if word != "@placeholder" and word in sentence:
        m = sum(word in other for other in sentences)
        score += math.log(n + 1) - math.log(m)
    scored.append((round(score / max(len(sentence), 1) ** 0.5, 9), i))
  return sorted(i for _, i in sorted(scored)[-most:])


def test_sentences_are_chosen_as_by_a_slow_rule():
  draw = random.Random(0)
  words = ["@placeholder", *"abcdefghij"]
  for _ in range(500):
    sentences = [
      draw.choices(words, k=draw.randint(1, 9))
      for _ in range(draw.randint(1, 12))
    ]
    query = draw.choices(words, k=draw.randint(0, 6))
    most = draw.randint(1, 6)
    found = top_sentences(sentences, query, most)
    assert found == slow_top(sentences, query, most)
    assert len(found) == min(most, len(sentences))


def test_a_collector_keeps_the_sentences_that_match():
  question = asked("a . | b . | c . | @entity0 d", "@placeholder b", "@entity0")
  for most, expected in ((0, "a . b . c . @entity0 d"), (2, "b . @entity0 d")):
    data = cloze.dataset(
      gather([question], sentences=most), origin="", verdict=""
    )
    assert texts(data, data.splits["train"].passages) == [expected]


# --- Numbers of words ---

TRAIN = [
  asked("b a a @entity2 | c d", "@placeholder b", "@entity2"),
  asked("e d d", "d @placeholder e", "@entity1"),
]


def test_words_are_numbered_by_kind_then_frequency_then_alphabet():
  data = made(TRAIN, [asked("a new @entity4", "@placeholder", "@entity4")])
  assert data.vocabulary.words == (
    "@placeholder",
    *(f"@entity{i}" for i in range(5)),
    *("d", "a", "b", "e", "c"),
  )
  assert data.entities == (3, 8)
  train = data.splits["train"]
  assert rows(train.passages) == [[10, 9, 9, 5, 12, 8], [11, 8, 8]]
  assert rows(train.queries) == [[2, 10], [8, 2, 11]]
  assert train.answers.tolist() == [5, 4] and train.answers.dtype == np.int32
  assert train.passages.tokens.dtype == np.int32
  held = data.splits["validation"]
  assert texts(data, held.passages) == ["a <unk> @entity4"]
  assert held.passages.unknown == 1 and train.passages.unknown == 0


def test_answers_keep_their_numbers_where_few_words_have_one():
  test = [asked("rare", "@placeholder", "answer")]
  data = made([*TRAIN, asked("f", "@placeholder", "c")], None, test)
  assert set(data.vocabulary.words[4:]) == {*"abcdef", "answer"}
  data = made(
    [*TRAIN, asked("f", "@placeholder", "c")], None, test, most_words=1
  )
  assert data.vocabulary.words[-3:] == ("d", "c", "answer")
  assert texts(data, data.splits["train"].passages) == [
    "<unk> <unk> <unk> @entity2 c d",
    "<unk> d d",
    "<unk>",
  ]
  assert texts(data, data.splits["test"].passages) == ["<unk>"]


def test_without_entities_there_are_none_and_no_baselines():
  own = [asked("Ann left", "who left", "Ann")]
  data = made(own, own, own)
  assert data.entities == (3, 3) and not data.baselines
  assert "entit" not in data.description and "error" not in data.description
  batch = ClozeBatches(
    data.splits["train"], data.entities, batch_size=1, seed=0, fingerprint=""
  )[0]
  assert batch["answer"] == [data.splits["train"].answers[0]]


def test_long_passages_are_cut_and_counted():
  data = made(TRAIN, max_passage=3)
  assert texts(data, data.splits["train"].passages) == ["b a a", "e d d"]
  assert data.description.endswith("; 1 passages cut to 3 words")
  assert data.baselines["train"].floor == 1


def test_long_queries_are_left_out_and_counted():
  data = made(TRAIN, max_query=2)
  assert texts(data, data.splits["train"].queries) == ["@placeholder b"]
  assert "1 train / 1 validation / 1 test questions" in data.description
  assert data.description.endswith("; 1 queries above 2 words left out")


def test_questions_without_a_passage_or_query_are_left_out_and_counted():
  empty = [asked("", "@placeholder", "@entity0"), asked("a", "", "@entity0")]
  data = made([*empty, *TRAIN], max_query=2)
  assert texts(data, data.splits["train"].passages) == ["b a a @entity2 c d"]
  assert (
    "; 2 questions without a passage or query left out, 1 queries above 2"
    in data.description
  )


def test_the_description_tells_all_that_is_known():
  own = [asked("@entity0 x @entity1", "@placeholder x", "@entity1")]
  data = made(TRAIN, own, left_out={"files of mud": 2_000, "others": 0})
  assert data.description == (
    "made up: 2 train / 1 validation / 1 test questions, 11 words, 3 entities"
    " (a test); validation error: floor 0.0%, most frequent entity 100.0%,"
    " first 100.0%, random 50.0%; 2,000 files of mud"
  )


@pytest.mark.parametrize("split", cloze.SPLITS)
def test_a_split_without_a_question_is_told_with_what_was_left_out(split):

  def but(questions, **options):
    every = [questions if name == split else TRAIN for name in cloze.SPLITS]
    return made(*every, **options)

  with pytest.raises(DataError) as caught:
    but([], left_out={"files of mud": 3})
  assert str(caught.value) == (
    f"made up: split {split} has no question; 3 files of mud"
  )
  long = [asked("a", "b " * 5 + "@placeholder", "@entity0")]
  with pytest.raises(DataError, match=f"split {split} has no question; 1 quer"):
    but(long, max_query=3)
  empty = [asked("", "@placeholder", "@entity0")]
  with pytest.raises(DataError, match=f"{split} has no question; 1 questions"):
    but(empty)


def made_of(arrays, **options):
  return cloze.dataset(arrays, origin="", verdict="", **options)


def test_the_fingerprint_is_of_what_is_encoded():
  first = made(TRAIN)
  assert made(TRAIN).fingerprint == first.fingerprint
  assert made(TRAIN[::-1]).fingerprint != first.fingerprint
  assert made(TRAIN, max_passage=3).fingerprint != first.fingerprint
  arrays = gather(TRAIN)
  kept = {name: array.copy() for name, array in arrays.items()}
  assert made_of(arrays).fingerprint == first.fingerprint
  for name, array in arrays.items():
    np.testing.assert_array_equal(array, kept[name])


def test_words_of_any_script_come_back_from_the_arrays():
  word = "ß\u2028\ud800\0"
  data = made(
    [asked("x", "@placeholder", "@entity0")._replace(sentences=[[word, "é"]])]
  )
  assert set(data.vocabulary.words) >= {word, "é"}


# --- Errors that need no model ---


def examples_of(passages, queries, answers):
  """Examples of lists of numbers."""

  def of(lists):
    starts = np.cumsum([0, *map(len, lists)])
    return Sentences(np.array(sum(lists, []), np.int32), starts, 0)

  return Examples(of(passages), of(queries), np.array(answers, np.int32))


def drawn(n, seed=0, longest=14, entities=(5, 12)):
  """Random examples; the answer of a few is no entity."""
  draw = random.Random(seed)
  passages = [
    draw.choices(range(2, 20), k=draw.randint(1, longest)) for _ in range(n)
  ]
  queries = [draw.choices(range(2, 20), k=draw.randint(1, 6)) for _ in range(n)]
  answers = [draw.randint(entities[0] - 1, entities[1]) for _ in range(n)]
  return examples_of(passages, queries, answers)


def test_errors_are_those_by_hand():
  found = cloze.measured(
    examples_of(
      # 10 to 14 are entities.
      [
        [3, 10, 11, 11, 10, 12],  # 11 is in the query: 10 leads by 2 to 1.
        [12, 13, 13, 4],
        [14, 3],  # The only one is the query's.
        [10, 11, 11, 12],  # The answer is not there.
      ],
      [[2, 11], [2], [14], [2, 3]],
      [10, 13, 14, 13],
    ),
    (10, 15),
  )
  assert found.floor == 1 / 4
  assert found.most_frequent == 2 / 4
  assert found.first == 3 / 4
  assert found.random == 1 - (1 / 2 + 1 / 2) / 4


def test_of_equally_frequent_entities_the_first_is_named():
  for passage, wrong in (([11, 10], 0), ([10, 11], 1), ([10, 11, 11, 10], 1)):
    found = cloze.measured(examples_of([passage], [[2]], [11]), (10, 15))
    assert found.most_frequent == found.first == wrong


def slow_errors(examples, entities):
  """One example after the other."""
  total = collections.Counter()
  for passage, query, answer in zip(
    rows(examples.passages),
    rows(examples.queries),
    examples.answers,
    strict=True,
  ):
    own = [word for word in passage if entities[0] <= word < entities[1]]
    total["floor"] += answer not in own
    may = [word for word in own if word not in query]
    names = list(dict.fromkeys(may))
    best = max(names, key=may.count, default=None)
    total["most_frequent"] += best != answer
    total["first"] += names[:1] != [answer]
    total["random"] += 1 - (answer in names) / max(len(names), 1)
  return {key: n / len(examples.answers) for key, n in total.items()}


@pytest.mark.parametrize("seed", range(4))
def test_errors_are_those_of_a_slow_rule(seed):
  for longest in (1, 6, 30):
    examples = drawn(300, seed, longest)
    found = cloze.measured(examples, (5, 12))
    assert found._asdict() == pytest.approx(slow_errors(examples, (5, 12)))
    assert found.floor <= found.random <= 1


def test_errors_are_certain_where_no_passage_has_an_entity():
  found = cloze.measured(examples_of([[2], [3]], [[2], [2]], [5, 6]), (5, 12))
  assert set(found) == {1.0}


# --- Some of the examples ---


def test_the_chosen_examples_are_some_of_them_and_always_the_same():
  examples = drawn(80)
  found = cloze_examples.chosen(examples, 20)
  every = list(
    zip(
      rows(examples.passages),
      rows(examples.queries),
      examples.answers.tolist(),
      strict=True,
    )
  )
  some = list(
    zip(
      rows(found.passages),
      rows(found.queries),
      found.answers.tolist(),
      strict=True,
    )
  )
  assert len(some) == 20
  at = [every.index(example) for example in some]
  assert at == sorted(set(at))
  again = cloze_examples.chosen(drawn(80), 20)
  np.testing.assert_array_equal(again.passages.tokens, found.passages.tokens)
  assert found.passages.tokens.dtype == np.int32


@pytest.mark.parametrize("most", [0, 80, 81])
def test_all_examples_are_chosen_where_there_are_no_more(most):
  examples = drawn(80)
  assert cloze_examples.chosen(examples, most) is examples


# --- Batches ---

N, B, MULTIPLE, ENTITIES = 101, 8, 4, (5, 12)


@pytest.fixture(scope="module")
def examples():
  """Each with an answer of its own, which is no entity, to be told by."""
  found = drawn(N, 1, 30)
  return found._replace(answers=np.arange(100, 100 + N, dtype=np.int32))


def drawing(examples, seed=0, **options):
  options = {"batch_size": B, "multiple": MULTIPLE, "permute": False} | options
  return ClozeBatches(
    examples, ENTITIES, seed=seed, fingerprint="made up", **options
  )


def epoch(found, which=0):
  """The batches of an epoch."""
  n = found.steps_per_epoch
  return [found[step] for step in range(which * n, (which + 1) * n)]


@pytest.mark.parametrize("size", [1, 8, 50, 51, N])
def test_every_example_comes_at_most_once_an_epoch_in_whole_batches(
  examples, size
):
  found = drawing(examples, batch_size=size)
  assert found.steps_per_epoch == N // size
  for which in (0, 1):
    answers = [batch["answer"].tolist() for batch in epoch(found, which)]
    assert all(len(own) == size for own in answers)
    every = sum(answers, [])
    assert len(set(every)) == len(every) == N // size * size


def test_every_example_comes_in_time_the_longest_too(examples):
  """What fills no batch is another in each epoch."""
  found = drawing(examples, batch_size=51)
  assert N % 51
  seen = set()
  for which in range(30):
    for batch in epoch(found, which):
      seen |= set(batch["answer"].tolist())
  assert len(seen) == N


def test_a_batch_holds_its_examples_as_they_are(examples):
  found = drawing(examples)
  passages, queries = rows(examples.passages), rows(examples.queries)
  longest = max(map(len, queries))
  for batch in epoch(found):
    assert {array.dtype.name for array in batch.values()} == {"int32"}
    assert batch["query"].shape == (B, longest)
    for k, answer in enumerate(batch["answer"] - 100):
      for name, own in (("passage", passages), ("query", queries)):
        n = batch[f"{name}_length"][k]
        assert batch[name][k, :n].tolist() == own[answer]
        assert not batch[name][k, n:].any()


def test_a_batch_is_of_one_length_but_for_what_shorter_ones_left(examples):
  found = drawing(examples)
  mixed, shapes = 0, set()
  for step, batch in enumerate(epoch(found)):
    lengths = -(-batch["passage_length"] // MULTIPLE) * MULTIPLE
    assert batch["passage"].shape[1] == found.shape(step) == lengths.max()
    shapes.add(found.shape(step))
    mixed += len(set(lengths.tolist())) > 1
  assert len(shapes) > 2
  assert mixed <= len(shapes)


def test_a_batch_is_the_same_always_and_others_are_other_ones(examples):
  def order(found, which):
    return [batch["answer"].tolist() for batch in epoch(found, which)]

  first, again = drawing(examples), drawing(examples)
  later = [again[step] for step in reversed(range(3 * N // B))]
  for step in (0, 7, 2 * N // B):
    for name, array in first[step].items():
      np.testing.assert_array_equal(array, later[-1 - step][name])
  assert order(first, 0) != order(first, 1) != order(first, 2)
  assert order(first, 0) != order(drawing(examples, seed=1), 0)
  # Not only the order, but what goes together too.
  sets = [{frozenset(b) for b in order(first, which)} for which in (0, 1)]
  assert len(sets[0] & sets[1]) < len(sets[0]) / 2
  # Nor are the lengths in one order.
  n = first.steps_per_epoch
  shapes = [[first.shape(k * n + i) for i in range(n)] for k in range(2)]
  assert shapes[0] != shapes[1]


def test_entities_are_renamed_one_to_one_and_nothing_else_is(examples):
  answers = np.arange(N, dtype=np.int32) % 20
  examples = examples._replace(answers=answers)
  plain, renamed = drawing(examples), drawing(examples, permute=True)
  maps = []
  for step in range(N // B):
    called = {}
    for name, before in plain[step].items():
      after = renamed[step][name]
      if name.endswith("_length"):
        np.testing.assert_array_equal(before, after)
        continue
      for old, new in zip(before.flat, after.flat, strict=True):
        if ENTITIES[0] <= old < ENTITIES[1]:
          assert ENTITIES[0] <= new < ENTITIES[1]
          assert called.setdefault(old, new) == new
        else:
          assert old == new
    assert len(set(called.values())) == len(called) > 4
    maps.append(tuple(sorted(called.items())))
  assert len(set(maps)) == len(maps)
  # Nor are the examples' own arrays changed.
  np.testing.assert_array_equal(examples.answers, np.arange(N) % 20)


def segments(found):
  """The lengths of passages that come one after the other, in an epoch."""
  shapes = [found.shape(step) for step in range(found.steps_per_epoch)]
  changes = sum(a != b for a, b in zip(shapes, shapes[1:], strict=False))
  return changes + 1, collections.Counter(shapes)


@pytest.mark.parametrize("run", [1, 3, 1000])
def test_a_run_has_batches_of_one_length_and_changes_no_batch(examples, run):
  options = {"batch_size": 2, "multiple": 8}
  found = drawing(examples, run=run, **options)
  n, shapes = segments(found)
  assert len(shapes) == 4
  assert n <= sum(math.ceil(k / run) for k in shapes.values())
  if run == 1000:
    assert n == len(shapes)

  def sets(batches):
    return sorted(tuple(b["answer"].tolist()) for b in epoch(batches))

  assert sets(found) == sets(drawing(examples, **options))


@pytest.mark.parametrize("permute", [False, True])
def test_the_shares_of_the_processes_make_up_the_batch(examples, permute):
  found = drawing(examples, permute=permute)
  parts = [
    batches.share(drawing(examples, permute=permute), i, 4) for i in range(4)
  ]
  for step in (0, 5, 30):
    for name, whole in found[step].items():
      shares = [part[step][name] for part in parts]
      assert {len(share) for share in shares} == {B // 4}
      np.testing.assert_array_equal(np.concatenate(shares), whole)


@pytest.mark.parametrize("size", [0, -1, N + 1])
def test_a_batch_size_out_of_range_is_refused(examples, size):
  with pytest.raises(ConfigError, match=f"batch_size: {size} .* 1 to {N}"):
    drawing(examples, batch_size=size)


def test_steps_and_seeds_count_from_0(examples):
  found = drawing(examples)
  with pytest.raises(IndexError, match="step -1: steps count from 0"):
    found[-1]
  with pytest.raises(IndexError, match="step -1: steps count from 0"):
    found.shape(-1)
  with pytest.raises(ConfigError, match="seed: -1 is not allowed: 0 or more"):
    drawing(examples, seed=-1)
  assert found[10**12]["answer"].shape == (B,)


def test_a_repr_tells_what_decides_the_batches(examples):
  every = [
    drawing(examples, **options)
    for options in (
      {},
      {"seed": 1},
      {"batch_size": 4},
      {"run": 2},
      {"permute": True},
      {"multiple": 8},
    )
  ]
  assert len({repr(found) for found in every}) == len(every)
  assert repr(every[0]) == repr(drawing(examples))
