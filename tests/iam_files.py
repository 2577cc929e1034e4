"""A made-up distribution of IAM-OnDB, as its owners pack it."""

import io
import tarfile

# form -> (strokes of each line, texts).
FORMS = {
  "a01-000u": (
    [
      [[(10, 10), (12, 14), (15, 14)], [(30, 9), (31, 8)]],
      [[(0, 0), (4, 4)], [(3, 9)]],
    ],
    ["Hi there", "A, b."],
  ),
  "a01-001x": ([[[(5, 5), (9, 5), (9, 9), (700, 9), (702, 11)]]], ["Jump"]),
  "b02-002": ([[[(1, 1), (2, 4)]]], ["Held out"]),
  "c03-003z": ([[[(7, 1), (1, 2), (3, 3)]]], ["Tested"]),
  "d04-004": ([[[(1, 1), (2, 2)]]], ["Too", "many"]),
}
LISTS = {
  "trainset": [" a01-000u", " a01-001x", " d04-004"],
  "testset_v": [" b02-002"],
  "testset_f": [" c03-003z"],
}


def xml(strokes):
  body = "".join(
    "<Stroke>"
    + "".join(f'<Point x="{x}" y="{y}" time="1.5"/>' for x, y in stroke)
    + "</Stroke>"
    for stroke in strokes
  )
  return (
    '<?xml version="1.0" encoding="ISO-8859-1"?><Session><Corner x="9" y="9"/>'
    f"<StrokeSet>{body}</StrokeSet></Session>"
  ).encode()


def content(forms=None):
  """{stem: {path: bytes}} of a distribution."""
  strokes, texts = {}, {}
  for form, (lines, said) in (forms or FORMS).items():
    folder = f"{form[:3]}/{form[:7]}"
    for i, line in enumerate(lines, 1):
      strokes[f"lineStrokes/{folder}/{form}-{i:02d}.xml"] = xml(line)
    text = "OCR:\n\nignored\n\nCSR:\n\n" + "\n".join(said) + "\n"
    texts[f"ascii/{folder}/{form}.txt"] = text.encode()
  return {"lineStrokes-all": strokes, "ascii-all": texts}


def write(folder, files=None, kind="xz", lists=None):
  folder.mkdir(exist_ok=True)
  for stem, members in (files or content()).items():
    if kind == "tree":
      for path, data in members.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
      continue
    ending = f".tar.{kind}" if kind else ".tar"
    with tarfile.open(folder / f"{stem}{ending}", f"w:{kind}") as tar:
      for path, data in members.items():
        member = tarfile.TarInfo(path)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
  for name, rows in (lists or LISTS).items():
    (folder / f"{name}.txt").write_text("\n".join(rows) + "\n")
  return folder
