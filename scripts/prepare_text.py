"""The tasks of scripts/prepare_data.py whose data is text.

Each is a function as is told there; none has a download.
"""

from collections.abc import Callable, Iterable
import pathlib

from lnrnn.data import fetch
from lnrnn.errors import DataError


def prepare_cnn(out: pathlib.Path, source: pathlib.Path | None) -> str:
  """Copies the folders of the CNN corpus's questions."""
  from lnrnn.data import question_files

  if source is None:
    raise DataError(
      "the CNN questions (cnn.tgz, Hermann et al. 2015) are at"
      " https://cs.nyu.edu/~kcho/DMQA/: unpack them, and name the directory by"
      " --from"
    )
  return _reading(
    "cnn", source, question_files.split_folders(source).values(), out
  )


def prepare_novels(out: pathlib.Path, source: pathlib.Path | None) -> str:
  """Copies novels in TEI XML, or an archive with them."""
  from lnrnn.data import mnist, novels

  if source is None:
    raise DataError(
      "100 English novels (ELTeC-eng, CC BY 4.0) are at"
      " https://doi.org/10.5281/zenodo.4662490: name the directory with the"
      " archive, or with the .xml files, by --from"
    )
  source = mnist.find_folder(source, "novels", "novels")
  there = novels.sources(source)
  found = sorted(source.rglob("*.xml")) if there == [source] else there
  return _reading("novels", source, found, out)


def prepare_babi(out: pathlib.Path, source: pathlib.Path | None) -> str:
  """Copies the bAbI tasks, or an archive with them."""
  from lnrnn.data import mnist

  if source is None:
    raise DataError(
      "the bAbI tasks (tasks_1-20_v1-2.tar.gz, Weston et al. 2015, CC BY 3.0)"
      " are at https://research.facebook.com/downloads/babi/: name the"
      " directory with the archive, or with the folder en, by --from"
    )
  source = mnist.find_folder(source, "babi", "babi")
  found = sorted(source.rglob("en/qa*.txt")) or sorted(source.glob("qa*.txt"))
  found = found or sorted(source.glob("[!.]*.t*"))
  return _reading("babi", source, found, out)


def _reading(
  name: str,
  source: pathlib.Path,
  found: Iterable[pathlib.Path],
  out: pathlib.Path,
) -> str:
  """Checks questions by reading them, and copies their files."""
  from lnrnn.data import reading

  print(reading.load(name, source).description)
  fetch.copy(list(found), out, source)
  return (
    "python -m experiments.train --config=configs/attentive_reader.py "
    f"--config.data.source={name} --workdir=runs/reader"
  )


def prepare_sick(out: pathlib.Path, source: pathlib.Path | None) -> str:
  """Copies the three files of SICK."""
  from lnrnn.data import sentence_tasks

  if source is None:
    raise DataError(
      "SICK (CC BY-NC-SA 3.0) is at https://zenodo.org/record/2787612: name"
      " the directory with SICK_train.txt, SICK_trial.txt and"
      " SICK_test_annotated.txt by --from"
    )
  sizes = {k: len(v.a) for k, v in sentence_tasks.read_sick(source).items()}
  print(", ".join(f"{n:,} {split} pairs" for split, n in sizes.items()))
  names = sentence_tasks.SICK.values()
  fetch.copy([source / name for name in names], out)
  return _DOWNSTREAM


def prepare_classification(
  out: pathlib.Path, source: pathlib.Path | None
) -> str:
  """Copies the files of MR, CR, SUBJ and MPQA."""
  from lnrnn.data import sentence_tasks

  names = [n for pair in sentence_tasks.CLASSIFICATION.values() for n in pair]
  if source is None:
    raise DataError(
      "MR, CR, SUBJ and MPQA are in datasmall_NB_ACL12.zip, which SentEval"
      " takes from https://dl.fbaipublicfiles.com/senteval/senteval_data/: put"
      f" {', '.join(names)} into one directory, and name it by --from"
    )
  for name in sentence_tasks.CLASSIFICATION:
    found = sentence_tasks.read_labelled(source, name)
    print(f"{name}: {len(found.texts):,} sentences, {found.blank} blank lines")
  fetch.copy([source / name for name in names], out)
  return _DOWNSTREAM


def prepare_glove(out: pathlib.Path, source: pathlib.Path | None) -> str:
  """Copies word vectors: a text or binary file, or a matrix and a list."""
  from lnrnn.data import word_vectors

  if source is None:
    raise DataError(
      "GloVe (PDDL) is at https://nlp.stanford.edu/projects/glove: unpack"
      " glove.6B.zip, and name a directory with one of its files by --from"
    )
  found = word_vectors.load(source)
  print(f"{len(found.words):,} words, {found.vectors.shape[1]} numbers each")
  endings = (".npy", ".txt", ".bin", ".vec", ".gz")
  there = sorted(p for p in source.iterdir() if p.suffix in endings)
  fetch.copy(there, out)
  return (
    f"python -m experiments.downstream --vectors={out} --out=runs/glove_bag"
  )


_DOWNSTREAM = "python -m experiments.downstream --workdir=RUN"

TASKS: dict[str, tuple[Callable[..., str], str]] = {
  "cnn": (prepare_cnn, "cnn"),
  "novels": (prepare_novels, "novels"),
  "babi": (prepare_babi, "babi"),
  "sick": (prepare_sick, "sick"),
  "sentence_classification": (
    prepare_classification,
    "sentence_classification",
  ),
  "glove": (prepare_glove, "glove"),
}
