"""How fast and in how much memory a corpus of sentences is made and read.

  python scripts/benchmark_corpus.py --lines=5000000 --out=corpus.json

Writes a file of random words with a sentence a line to a temporary folder,
makes a corpus of it, opens that and draws batches, each in a process of its
own, and removes all of it. The text was just written, and so mostly comes from
memory, not from a disk.
"""

import argparse
from collections.abc import Callable
import concurrent.futures
import json
import multiprocessing
import os
import pathlib
import resource
import sys
import tempfile
import time
from typing import Any

from benchmark_common import Fault, table_row
from benchmark_machine import machine
import numpy as np

from lnrnn.data import corpus
from lnrnn.data.triple_batches import TripleBatches
from lnrnn.errors import UserError

# A word's frequency falls with its rank k as 1 / (k + SHIFT), as in English.
WORDS, SHIFT = 200_000, 2.7
SHORTEST, LONGEST = 5, 25  # Words of a sentence, its end mark not counted.
OPTIONS = corpus.Options("lines", 20_000, 29, 0.05)  # configs/skip_thoughts.py
BATCH = 64
_CHUNK = 10_000  # Lines that are written at a time.


def write(path: str, lines: int) -> None:
  """Writes sentences, the same ones each time.

  Args:
    path: of the file.
    lines: how many.
  """
  draw = np.random.default_rng(0)
  letters = draw.integers(ord("a"), ord("z") + 1, (WORDS, 6), np.uint8)
  words = [row.tobytes().decode() for row in letters]
  edges = np.cumsum(1 / (np.arange(WORDS) + SHIFT))
  with open(path, "w", encoding="utf-8") as file:
    for first in range(0, lines, _CHUNK):
      n = min(_CHUNK, lines - first)
      ends = np.cumsum(draw.integers(SHORTEST, LONGEST + 1, n)).tolist()
      ranks = np.searchsorted(edges, draw.random(ends[-1]) * edges[-1])
      text = [words[rank] for rank in ranks.tolist()]
      for start, end in zip([0, *ends], ends, strict=False):
        file.write(" ".join(text[start:end]) + " .\n")


def make(folder: str) -> dict[str, Any]:
  """Makes the corpus of a folder: seconds, words and memory."""
  before, start = _memory(), time.perf_counter()
  start_cpu = time.process_time()
  data = corpus.load(OPTIONS, folder)
  return {
    "seconds": time.perf_counter() - start,
    "cpu_seconds": time.process_time() - start_cpu,
    "words": data.record["read_words"],
    "sentences": data.record["sentences"],
    "shards": len(data.record["shards"]),
    "triples": {name: len(data.splits[name]) for name in corpus.SPLITS},
    "before_mib": before[0],
    "peak_mib": _memory()[0],
  }


def draw(folder: str, batches: int) -> dict[str, Any]:
  """Opens the corpus that `make` has made, and draws batches."""
  before, start = _memory(), time.perf_counter()
  data = corpus.load(OPTIONS, folder)
  opened = time.perf_counter()
  # Of `load`, what is not for the text, whose sha256 names the corpus.
  (made,) = pathlib.Path(os.environ["LNRNN_CACHE_DIR"]).glob("corpus-*/")
  corpus.Corpus(made)
  checked = time.perf_counter()
  drawn = TripleBatches(
    data.splits["train"],
    batch_size=BATCH,
    seed=0,
    fingerprint=data.fingerprint,
  )
  drawn[0]  # Imports grain.
  first = time.perf_counter()
  for step in range(batches):
    drawn[step]
  peak, own = _memory()
  return {
    "open_seconds": opened - start,
    "check_seconds": checked - opened,
    "bytes": sum(path.stat().st_size for path in made.iterdir()),
    "batches": batches,
    "seconds": time.perf_counter() - first,
    "before_mib": before[0],
    "peak_mib": peak,
    "own_mib": own,
  }


def _memory() -> tuple[float, float | None]:
  """MiB of this process: at most, and now without files that are mapped."""
  unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
  try:
    status = pathlib.Path("/proc/self/status").read_text("utf-8")
  except OSError:  # No Linux.
    return peak, None
  own = next(x for x in status.splitlines() if x.startswith("RssAnon"))
  return peak, int(own.split()[1]) / (1 << 10)


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
  """What a function gives in a fresh process."""
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
    return pool.submit(function, *arguments).result()


def measure(lines: int, batches: int) -> dict[str, Any]:
  """Writes, makes, opens, draws and removes.

  Args:
    lines: sentences to write.
    batches: to draw.

  Returns:
    What `make` and `draw` tell.

  Raises:
    Fault: a process died, or there is no room for the files.
  """
  try:
    with tempfile.TemporaryDirectory() as folder:
      text = pathlib.Path(folder) / "sentences" / "random.txt"
      text.parent.mkdir()
      os.environ["LNRNN_CACHE_DIR"] = str(pathlib.Path(folder) / "cache")
      _apart(write, str(text), lines)
      return {
        "lines": lines,
        "text_bytes": text.stat().st_size,
        "make": _apart(make, folder),
        "draw": _apart(draw, folder, batches),
      }
  except OSError as error:
    raise Fault(f"temporary files: {error.strerror or error}") from error
  except concurrent.futures.BrokenExecutor as error:
    raise Fault("a process died; is there enough memory?") from error


def table(found: dict[str, Any]) -> str:
  """The measurements as Markdown."""
  made, drawn = found["make"], found["draw"]
  own = drawn["own_mib"]
  rows = [
    ("", "seconds", "rate", "peak memory"),
    ("---",) * 4,
    (
      f"make it: {found['lines']:,} lines, {made['words']:,} words",
      f"{made['seconds']:.1f}",
      f"{made['words'] / made['seconds']:,.0f} words/s,"
      f" {made['words'] / made['cpu_seconds']:,.0f} of CPU time",
      f"{made['peak_mib']:.0f} MiB",
    ),
    (
      f"open it: sha256 of {found['text_bytes'] / 1e6:,.0f} MB of text and of"
      f" {drawn['bytes'] / 1e6:,.0f} MB that were made of it",
      f"{drawn['open_seconds']:.2f} ({drawn['check_seconds']:.2f} without the"
      " text)",
      "",
      "",
    ),
    (
      f"draw {drawn['batches']:,} batches of {BATCH} from"
      f" {made['triples']['train']:,} triples",
      f"{drawn['seconds']:.2f}",
      f"{drawn['batches'] / drawn['seconds']:,.0f} batches/s",
      f"{drawn['peak_mib']:.0f} MiB"
      + (f", {own:.0f} without mapped files" if own else ""),
    ),
  ]
  return "\n".join(table_row(*row) for row in rows)


def main(arguments: list[str] | None = None) -> int:
  """Measures, tells, writes; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--lines", type=int, default=5_000_000)
  parser.add_argument("--batches", type=int, default=1000, help="to draw")
  parser.add_argument("--out", help="JSON file to write")
  given = parser.parse_args(arguments)
  if given.lines < 1 or given.batches < 1:
    parser.error("--lines and --batches: 1 at least")
  out = pathlib.Path(given.out) if given.out else None
  try:
    if out and not out.parent.is_dir():  # Not after minutes.
      raise Fault(f"--out={out}: there is no folder {out.parent}")
    about = machine()
    found = measure(given.lines, given.batches)
    print(table(found))
    if out:
      text = json.dumps({"machine": about, **found}, indent=1)
      out.write_text(text + "\n", encoding="utf-8")
  except (UserError, Fault) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except OSError as error:
    print(f"error: --out={out}: {error.strerror}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
