"""How fast and in how much memory `.question` files are read.

  python scripts/benchmark_question_files.py --files=100000

Makes files of random words in a temporary folder, of the size of those of the
CNN corpus, and removes them afterwards. They were just written, and so mostly
come from memory, not from a disk: this is the time of the reader itself. Each
question is then taken in as for training, with the sentences that match best.
"""

import argparse
from collections.abc import Sequence
import multiprocessing
import pathlib
import random
import resource
import sys
import tempfile
import time

from lnrnn.data import cloze, question_files
from lnrnn.errors import UserError

ENTITIES, SENTENCE, WORDS, DIFFERENT = 25, 25, 20_000, 500
KEPT = 4  # Sentences of a question, as configs/attentive_reader.py has it.


def content(draw: random.Random, words: Sequence[str], tokens: int) -> str:
  """One file, of random words.

  Args:
    draw: decides it.
    words: to choose from.
    tokens: of the context.
  """
  names = [f"@entity{n}" for n in draw.sample(range(300), ENTITIES)]
  context = [
    draw.choice(names) if draw.random() < 0.1 else draw.choice(words)
    for _ in range(tokens)
  ]
  context[SENTENCE - 1 :: SENTENCE] = "." * (tokens // SENTENCE)
  query = [*draw.choices(words, k=12), "@placeholder"]
  listed = "\n".join(f"{name}:Name of it" for name in names)
  return "\n\n".join(
    ["http://url", " ".join(context), " ".join(query), names[0], listed]
  )


def write(folder: str, files: int, tokens: int) -> None:
  """Writes them, `DIFFERENT` of them, which is enough, again and again."""
  draw = random.Random(0)
  letters = "abcdefghijklmnopqrstuvwxyz"
  words = ["".join(draw.choices(letters, k=5)) for _ in range(WORDS)]
  texts = [content(draw, words, tokens) for _ in range(DIFFERENT)]
  for i in range(files):
    path = pathlib.Path(folder) / f"{i:040x}{question_files.ENDING}"
    path.write_text(texts[i % DIFFERENT], encoding="utf-8")


def measure(folder: str) -> str:
  """Reads a folder, takes its questions in, and tells of time and memory."""
  before, n, tokens = _peak(), 0, 0
  collector = cloze.Collector(KEPT)
  start, start_cpu = time.perf_counter(), time.process_time()
  for question in question_files.stream(folder):
    n += 1
    tokens += sum(map(len, question.sentences))
    collector.add("train", question)
  seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
  held = sum(array.nbytes for array in collector.arrays().values())
  return (
    f"{n:,} files of {tokens / n:.0f} tokens in {seconds:.1f} s:"
    f" {n / seconds:,.0f} files/s in one process, {n / cpu:,.0f} per second of"
    f" its CPU time; peak memory {_peak():.0f} MiB, {before:.0f} MiB before"
    f" reading, {held / (1 << 20):.0f} MiB of what is kept"
  )


def _peak() -> float:
  """MiB that this process had at most."""
  unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main(arguments: list[str] | None = None) -> int:
  """Writes, reads, tells and removes; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--files", type=int, default=100_000)
  parser.add_argument("--tokens", type=int, default=700, help="of a context")
  parser.add_argument("--dir", help="of files to read; then none are made")
  given = parser.parse_args(arguments)
  try:
    if given.dir:
      print(measure(given.dir))
      return 0
    with tempfile.TemporaryDirectory() as folder:
      # Elsewhere, as what writing needs is not the memory of reading.
      writer = multiprocessing.get_context("spawn").Process(
        target=write, args=(folder, given.files, given.tokens)
      )
      writer.start()
      writer.join()
      if writer.exitcode:  # It has said why.
        return 1
      print(measure(folder))
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
