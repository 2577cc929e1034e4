"""Writes a few questions and books as their owners lay them out; made up."""

from collections.abc import Sequence
import io
import pathlib
import tarfile
import zipfile

SIZES = {"train": 7, "validation": 3, "test": 2}
CNN_FOLDERS = {"train": "training", "validation": "validation", "test": "test"}
PEOPLE = ("Anna", "Boris", "Clara", "Daniel", "Emma", "Felix", "Greta")
THINGS = ("mill", "well", "barn", "shop", "inn", "port", "wood", "hall", "gate")


def question(i: int) -> bytes:
  """A `.question` file of six sentences; the fourth tells the answer."""
  who, other = f"@entity{i % 5}", f"@entity{5 + i % 3}"
  told = [f"{other} slept {k} hours ." for k in range(6)]
  told[3] = f"{who} met {other} at the {THINGS[i % 9]} ."
  return "\n\n".join(
    [
      f"http://news.example/{i}",
      " ".join(told),
      f"@placeholder met {other} at the {THINGS[i % 9]}",
      who,
      f"{who}:Somebody\n{other}:The Others: a band",
    ]
  ).encode()


def write_cnn(folder: pathlib.Path, place: str = "") -> pathlib.Path:
  """Files of all splits, in one of the layouts."""
  for start, (split, name) in enumerate(CNN_FOLDERS.items()):
    own = folder / place / name
    own.mkdir(parents=True)
    for i in range(SIZES[split]):
      (own / f"{i:04x}.question").write_bytes(question(10 * start + i))
  return folder


def write_top4(folder: pathlib.Path) -> pathlib.Path:
  """Three numbered questions, each with the answer in its passage."""
  folder.mkdir(parents=True, exist_ok=True)
  records = [
    f"1 @entity{i} saw the {thing} .\n2 @entity{i + 1} slept .\n"
    f"3 @placeholder saw the {thing} ? \t@entity{i}\t0\n"
    for i, thing in enumerate(THINGS[:3])
  ]
  (folder / "top.txt").write_text("".join(records))
  return folder


def write_babi(folder: pathlib.Path, task: int = 1) -> pathlib.Path:
  """Twenty questions to train with, and ten others."""
  own = folder / "en"
  own.mkdir(parents=True, exist_ok=True)
  for part, n in (("train", 20), ("test", 10)):
    lines = [
      f"1 {PEOPLE[i % 7]} went to the {THINGS[i % 9]}.\n"
      f"2 Where is {PEOPLE[i % 7]}? \t{THINGS[i % 9]}\t1\n"
      for i in range(n)
    ]
    (own / f"qa{task}_made-up_{part}.txt").write_text("".join(lines))
  return folder


def tei(body: str, name: str = "") -> bytes:
  """A book of this body, with matter before and after it."""
  named = f' xml:id="{name}"' if name else ""
  return (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    f'<TEI xmlns="http://www.tei-c.org/ns/1.0"{named}><teiHeader><p>Header'
    "</p></teiHeader><text><front><p>Before</p></front><body>"
    f"{body}</body><back><p>After</p></back></text></TEI>"
  ).encode()


def novel(people: Sequence[str], sentences: int = 30) -> bytes:
  """A book of two chapters, in whose sentences these people take turns."""
  paragraphs = []
  for i in range(sentences):
    who, other = people[i % len(people)], people[(i + 1) % len(people)]
    thing = THINGS[i * i % 9]
    paragraphs.append(
      f"<p>Then {who} met {other}’s friends at the {thing}.</p>"
    )
  chapter = f"<div><head>Chapter</head>{''.join(paragraphs)}</div>"
  return tei(chapter * 2, people[0])


def novels(n: int = 3) -> dict[str, bytes]:
  """{name of a file: book}, each with three people."""
  return {
    f"level1/{i}.xml": novel([PEOPLE[(i + k) % 7] for k in range(3)])
    for i in range(n)
  }


def write_files(
  folder: pathlib.Path, held: dict[str, bytes], kind: str = "tree"
) -> pathlib.Path:
  """Files in a folder, in a tar of some compression, or in a zip.

  Args:
    folder: for them, or for the archive; it may be there.
    held: by their paths.
    kind: "tree", "zip", "" (a plain tar), "gz", "bz2" or "xz".
  """
  folder.mkdir(parents=True, exist_ok=True)
  if kind == "zip":
    with zipfile.ZipFile(
      folder / "files.zip", "w", zipfile.ZIP_DEFLATED
    ) as packed:
      for name, data in held.items():
        packed.writestr(name, data)
  elif kind == "tree":
    for name, data in held.items():
      path = folder / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(data)
  else:
    path = folder / f"files.tar{'.' if kind else ''}{kind}"
    with tarfile.open(path, f"w:{kind}") as tar:  # type: ignore
      for name, data in held.items():
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
  return folder
