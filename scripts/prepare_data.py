r"""Fetches, checks and converts the data of a task.

  python scripts/prepare_data.py mnist --out=DIR [--from=DIR]

Fetches the owners' files into a folder of DIR, or takes them from the directory
given by --from, checks their sha256, and converts them where the task has a
converted form. Those of handwriting, flickr8k, coco and of all that is text
(cnn, novels, babi, sick, sentence_classification, glove) are not to be had so
easily: --from is needed, and they are checked by reading them, as is what
--from gives of cifar10. Runs read the result through LNRNN_DATA_DIR=DIR. A
second call goes on where the first was stopped, and does nothing when all is
there.

Exit codes: 0 done, 1 wrong flags, 2 the data cannot be had or written, 130
and 143 stopped by Ctrl-C and SIGTERM; a second signal stops it at once.

A task is a function of `out`, the directory that its files go to, and `source`,
the one that holds the owners' files, or None to fetch them. It returns what to
type next, and raises a DataError where a file cannot be had, is not the
published one or holds something else, or files do not fit together.
"""

from collections.abc import Callable, Sequence
import pathlib
import sys

from absl import app, flags

# What is beside this file, wherever it is imported from.
sys.path.insert(1, str(pathlib.Path(__file__).resolve().parent))

import prepare_text

from lnrnn.data import fetch, mnist
from lnrnn.errors import ConfigError, DataError, UserError
from lnrnn.training import signals

_FROM = flags.DEFINE_string(
  "from", None, "Directory with the owners' files, instead of the network."
)
_OUT = flags.DEFINE_string("out", None, "Directory to put the data in.")

_MNIST_MIRRORS = (
  "https://storage.googleapis.com/cvdf-datasets/mnist/",
  "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
# As registered by tensorflow-datasets, url_checksums/mnist.txt.
_MNIST_SHA256 = {
  "train-images-idx3-ubyte.gz": (
    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
  ),
  "train-labels-idx1-ubyte.gz": (
    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
  ),
  "t10k-images-idx3-ubyte.gz": (
    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
  ),
  "t10k-labels-idx1-ubyte.gz": (
    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
  ),
}
_MNIST_MAX_BYTES = 1 << 24  # The largest of them has 9.9 MB.


def prepare_mnist(out: pathlib.Path, source: pathlib.Path | None) -> str:
  """Gets the four idx files and makes the tensorflow-datasets form of them.

  That goes to `out/lnrnn_mnist/<version>`.
  """
  for name, sha256 in _MNIST_SHA256.items():
    mirrors = [source.resolve().as_uri() + "/"] if source else _MNIST_MIRRORS
    fetch.fetch(
      [mirror + name for mirror in mirrors],
      out / name,
      sha256,
      max_bytes=_MNIST_MAX_BYTES,
    )
  # Imported here: the other tasks do without tensorflow-datasets.
  from lnrnn.data import tfds_mnist

  tfds_mnist.write(out, out)
  return (
    "python -m experiments.train --config=configs/mnist_mlp.py "
    "--config.data.source=tfds --workdir=runs/mnist_mlp   # or source=idx"
  )


_AMAT_MIRROR = (
  "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
)
# As registered by tensorflow-datasets, datasets/binarized_mnist/checksums.tsv.
_AMAT_SHA256 = {
  "binarized_mnist_train.amat": (
    "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"
  ),
  "binarized_mnist_valid.amat": (
    "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2"
  ),
  "binarized_mnist_test.amat": (
    "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"
  ),
}
# The largest of them has 78.4 MB.
_AMAT_MAX_BYTES = 1 << 27


def prepare_draw(out: pathlib.Path, source: pathlib.Path | None) -> str:
  """Gets the three text files of binarised MNIST, plain or as .gz."""
  for name, sha256 in _AMAT_SHA256.items():
    urls = [_AMAT_MIRROR + name]
    if source:
      stem = f"{source.resolve().as_uri()}/{name}"
      urls = [stem, f"{stem}.gz"]
    fetch.fetch(urls, out / name, sha256, max_bytes=_AMAT_MAX_BYTES)
  return (
    "python -m experiments.train --config=configs/draw.py "
    "--config.data.source=amat --workdir=runs/draw"
  )


_CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
# As registered by tensorflow-datasets, url_checksums/cifar10.txt.
_CIFAR10_SHA256 = (
  "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
)
# It has 170,052,171 bytes.
_CIFAR10_MAX_BYTES = 1 << 28


def prepare_cifar10(out: pathlib.Path, source: pathlib.Path | None) -> str:
  """Gets the binary version and makes the tensorflow-datasets form of it.

  That goes to `out/lnrnn_cifar10/<version>`. `source` may hold the archive or
  an unpacked tree, be it with a part of the pictures.
  """
  from lnrnn.data import cifar10

  if source:
    # Before they are copied: what has its name is taken for whole.
    folder = mnist.find_folder(source, "--from", "cifar10")
    cifar10.load("binary", folder)
    found = cifar10.owners_files(folder)
    fetch.copy(found, out)
    got = [out / path.name for path in found]
  else:
    got = [out / _CIFAR10_URL.rpartition("/")[2]]
    fetch.fetch(
      [_CIFAR10_URL], got[0], _CIFAR10_SHA256, max_bytes=_CIFAR10_MAX_BYTES
    )
  if cifar10.owners_files(out) != got:
    raise DataError(
      f"{out}: has other files of CIFAR-10 beside {got[0].name}; remove them"
      " and start again"
    )
  data = cifar10.load("binary", out)
  print(data.description)
  # Imported here: all before does without tensorflow-datasets.
  from lnrnn.data import tfds_cifar10

  made = tfds_cifar10.write(out, out)
  if cifar10.load("tfds", made).fingerprint != data.fingerprint:
    raise DataError(
      f"{made}: has other pictures than the files in {out}; remove it and start"
      " again"
    )
  cases = len(data.splits["train"].labels)
  return (
    "python -m experiments.train --config=configs/convnet.py:"
    f"data.source=binary,data.train_cases={cases} "
    "--workdir=runs/convnet   # or source=tfds"
  )


def prepare_handwriting(out: pathlib.Path, source: pathlib.Path | None) -> str:
  """Copies IAM-OnDB's archives and lists, and parses them."""
  from lnrnn.data import iam_ondb

  if source is None:
    raise DataError(
      "IAM-OnDB is given to registered researchers alone: get lineStrokes-all,"
      " ascii-all and the lists of forms (trainset.txt, testset_v.txt,"
      " testset_f.txt, testset_t.txt) from"
      " https://fki.tic.heia-fr.ch/databases/iam-on-line-handwriting-database"
      " and name their directory by --from"
    )
  found = iam_ondb.owners_files(source)
  # Before it is copied: a second call leaves a tree that is there as it is.
  iam_ondb.load("iam_ondb", source)
  fetch.copy(found, out)
  print(iam_ondb.load("iam_ondb", out).description)
  return (
    "python -m experiments.train --config=configs/handwriting.py "
    "--config.data.source=iam_ondb --workdir=runs/handwriting"
  )


def prepare_flickr8k(out: pathlib.Path, source: pathlib.Path | None) -> str:
  """Copies Flickr8k's captions and lists, and features of its images."""
  from lnrnn.data import captions, flickr8k, text_files

  if source is None:
    raise DataError(
      "Flickr8k is given on request alone: ask for Flickr8k.token.txt and the"
      " lists Flickr_8k.*Images.txt (Flickr8k_text.zip) at"
      " https://hockenmaier.cs.illinois.edu/8k-pictures.html, make features of"
      " the images (scripts/extract_features.py), and name the directory of all"
      " by --from"
    )
  print(captions.load("flickr8k", source).description)
  names = [flickr8k.CAPTION_FILE, *flickr8k.LISTS.values()]
  names += [text_files.NAMES_FILE, text_files.matrix(source).name]
  fetch.copy([source / name for name in names], out)
  return (
    "python -m experiments.train --config=configs/order_embedding.py "
    "--config.data.source=flickr8k --workdir=runs/order"
  )


def prepare_coco(out: pathlib.Path, source: pathlib.Path | None) -> str:
  """Copies MS-COCO in the authors' layout."""
  from lnrnn.data import captions, coco

  if source is None:
    raise DataError(
      "the authors' captions and VGG-19 features of MS-COCO were in coco.zip at"
      " http://www.cs.toronto.edu/~vendrov/datasets/coco.zip: unpack it, or"
      " what has the same layout (docs/guide.md), and name the directory by"
      " --from"
    )
  print(captions.load("coco", source).description)
  fetch.copy(coco.owners_files(source), out, source)
  return (
    "python -m experiments.train --config=configs/order_embedding.py "
    "--config.data.source=coco --workdir=runs/order"
  )


# Task: what prepares it, and the folder that its loader looks for.
TASKS: dict[str, tuple[Callable[..., str], str]] = {
  "mnist": (prepare_mnist, "mnist"),
  "draw": (prepare_draw, "binarized_mnist"),
  "cifar10": (prepare_cifar10, "cifar10"),
  "handwriting": (prepare_handwriting, "iam_ondb"),
  "flickr8k": (prepare_flickr8k, "flickr8k"),
  "coco": (prepare_coco, "coco"),
  **prepare_text.TASKS,
}


def _prepare(arguments: Sequence[str]) -> None:
  if len(arguments) != 1 or arguments[0] not in TASKS:
    raise ConfigError(
      f"TASK: {' '.join(arguments) or 'nothing'} is not allowed: one of "
      f"{', '.join(TASKS)}"
    )
  if not _OUT.value:
    raise ConfigError("--out: a directory to put the data in is needed")
  source = pathlib.Path(_FROM.value).expanduser() if _FROM.value else None
  if source and not source.is_dir():
    raise ConfigError(f"--from: {source} is not a directory")
  root = pathlib.Path(_OUT.value).expanduser().resolve()
  prepare, folder = TASKS[arguments[0]]
  command = prepare(root / folder, source)
  print(f"Ready. Next:\n  export LNRNN_DATA_DIR={root}\n  {command}")


def main(argv: Sequence[str]) -> int:
  """Prepares one task; returns the exit code."""
  try:
    with signals.handled():
      _prepare(argv[1:])
  except signals.Interrupted as error:
    signals.tell(f"prepare_data: {error}; start again to go on")
    return error.exit_code
  except (UserError, OSError) as error:
    print(f"prepare_data: {error}", file=sys.stderr)
  except ImportError as error:
    print(
      f"prepare_data: the package {error.name} is needed: "
      "pip install -r requirements.txt",
      file=sys.stderr,
    )
  else:
    return 0
  return 2


if __name__ == "__main__":
  app.run(main)
