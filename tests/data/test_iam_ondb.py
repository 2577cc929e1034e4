"""IAM-OnDB: what is read, normalised, refused and kept; made-up files."""

from iam_files import FORMS, LISTS, content, write, xml
import numpy as np
import pytest

from lnrnn.data import iam_ondb, iam_ondb_files
from lnrnn.errors import ConfigError, DataError


@pytest.fixture
def cache(tmp_path, monkeypatch):
  folder = tmp_path / "cache"
  monkeypatch.setenv("LNRNN_CACHE_DIR", str(folder))
  return folder


@pytest.fixture
def folder(tmp_path, cache):
  return write(tmp_path / "iam_ondb")


# --- What is read ---


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz", "tree"])
def test_archives_and_trees_hold_the_same_lines(tmp_path, cache, kind):
  data = iam_ondb.load("iam_ondb", write(tmp_path / "d", kind=kind))
  lines = data.splits["train"]
  assert list(lines.names) == [
    "a01-000u-01",
    "a01-000u-02",
    "a01-001x-01",
    "c03-003z-01",
  ]
  assert lines.texts == ["Hi there", "A, b.", "Jump", "Tested"]
  assert data.splits["validation"].texts == ["Held out"]
  raw = lines.offsets[:, :2] * data.deviation + data.mean
  expected = [
    *[(2, 4, 0), (3, 0, 1), (15, -5, 0), (1, -1, 1)],
    *[(4, 4, 1), (-1, 5, 1)],
    *[(4, 0, 0), (0, 4, 0), (2, 2, 1)],  # The jump of 691 is left out.
    *[(-6, 1, 0), (2, 1, 1)],
  ]
  np.testing.assert_allclose(raw, np.array(expected)[:, :2], atol=1e-5)
  np.testing.assert_array_equal(lines.offsets[:, 2], [e[2] for e in expected])
  np.testing.assert_array_equal(lines.starts, [0, 4, 6, 9, 11])
  assert lines.line(1).shape == (2, 3)


def test_offsets_are_normalised_by_the_training_split_alone(folder):
  data = iam_ondb.load("iam_ondb", folder)
  xy = data.splits["train"].offsets[:, :2]
  np.testing.assert_allclose(xy.mean(axis=0), 0, atol=1e-6)
  np.testing.assert_allclose(xy.std(axis=0), 1, rtol=1e-6)
  held = data.splits["validation"].offsets[0, :2]
  np.testing.assert_allclose(
    held, ((1, 3) - data.mean) / data.deviation, rtol=1e-5
  )


def test_what_is_left_out_is_counted_and_told(folder):
  data = iam_ondb.load("iam_ondb", folder)
  assert list(data.left_out.values()) == [1, 1]
  assert "1 lines of forms with another number of texts" in data.description
  assert "without testset_t" in data.description


def test_a_stroke_that_ends_in_a_jump_ends_before_it(tmp_path, cache):
  forms = dict(FORMS)
  forms["a01-001x"] = ([[[(5, 5), (9, 5), (900, 9)], [(9, 9), (9, 10)]]], ["J"])
  data = iam_ondb.load("iam_ondb", write(tmp_path / "d", content(forms)))
  line = data.splits["train"].line(2)
  np.testing.assert_array_equal(line[:, 2], [1, 0, 1])


def test_a_stroke_that_ends_in_two_jumps_ends_before_both(tmp_path, cache):
  stroke = [(5, 5), (9, 5), (900, 9), (1900, 9)]
  forms = {**FORMS, "a01-001x": ([[stroke, [(9, 9), (9, 10)]]], ["J"])}
  data = iam_ondb.load("iam_ondb", write(tmp_path / "d", content(forms)))
  line = data.splits["train"].line(2)
  np.testing.assert_array_equal(line[:, 2], [1, 0, 1])


def test_a_form_that_lost_a_line_is_left_out(tmp_path, cache):
  files = content()
  lines = files["lineStrokes-all"]
  stem = "lineStrokes/a01/a01-000/a01-000u"
  lines[f"{stem}-03.xml"] = lines.pop(f"{stem}-02.xml")
  data = iam_ondb.load("iam_ondb", write(tmp_path / "d", files))
  assert data.splits["train"].texts == ["Jump", "Tested"]
  assert list(data.left_out.values()) == [3, 1]


def test_listed_forms_without_strokes_are_told(tmp_path, cache):
  lists = {
    **LISTS,
    "testset_f": ["a01-001x", "b01-009"],
    "testset_t": ["c03-003z", "z09-001"],
  }
  lists["trainset"] = ["a01-000u"]
  data = iam_ondb.load("iam_ondb", write(tmp_path / "d", lists=lists))
  assert (
    "(a part of the paper's data, 2 of the listed forms are not there)"
    in data.description
  )


def test_the_official_splitting_has_a_test_split(folder):
  data = iam_ondb.load("iam_ondb", folder, "official")
  assert [len(v.texts) for v in data.splits.values()] == [3, 1, 1]
  assert data.splits["test"].texts == ["Tested"]
  assert "official training set" in data.description


def test_the_larger_validation_set_is_trained_on_where_it_is(tmp_path, cache):
  lists = {**LISTS, "testset_f": [], "testset_t": ["c03-003z"]}
  lists["testset_f"] = ["a01-001x"]
  lists["trainset"] = ["a01-000u"]
  data = iam_ondb.load("iam_ondb", write(tmp_path / "d", lists=lists))
  assert len(data.splits["train"].texts) == 4
  assert "the paper's data" in data.description


def test_padded_rows_hold_the_first_points_and_the_whole_text(folder):
  lines = iam_ondb.load("iam_ondb", folder).splits["train"]
  rows = iam_ondb.padded(lines, 3)
  np.testing.assert_array_equal(rows["length"], [3, 2, 3, 2])
  np.testing.assert_array_equal(rows["text_length"], [8, 5, 4, 6])
  np.testing.assert_array_equal(rows["ink"][0], lines.line(0)[:3])
  np.testing.assert_array_equal(rows["ink"][1, :2], lines.line(1))
  assert (rows["ink"][1, 2:] == 0).all() and rows["text"].shape == (4, 8)
  assert (rows["text"][2, 4:] == 0).all()


def test_embedded_lines_need_no_files(monkeypatch):
  monkeypatch.setattr(iam_ondb, "EMBEDDED_LINES", {"train": 5, "validation": 2})
  data = iam_ondb.load()
  assert [len(v.texts) for v in data.splits.values()] == [5, 2]
  assert "no handwriting" in data.description
  assert data.fingerprint == iam_ondb.load("embedded").fingerprint


# --- What is kept ---


def test_what_was_parsed_is_read_from_the_cache(folder, cache, monkeypatch):
  first = iam_ondb.load("iam_ondb", folder)
  assert len(list(cache.glob("*.npz"))) == 1
  monkeypatch.setattr(iam_ondb_files, "_parse", None)  # Not called again.
  again = iam_ondb.load("iam_ondb", folder)
  assert again.fingerprint == first.fingerprint
  np.testing.assert_array_equal(
    again.splits["train"].offsets, first.splits["train"].offsets
  )


@pytest.mark.parametrize(
  "damage", ["cut", "changed", "other", "no sum", "flags", "method"]
)
def test_a_damaged_cache_is_made_again(folder, cache, damage):
  first = iam_ondb.load("iam_ondb", folder)
  (path,) = cache.glob("*.npz")
  data = bytearray(path.read_bytes())
  if damage == "cut":
    path.write_bytes(data[: len(data) // 2])
  elif damage == "changed":
    at = data.index((700).to_bytes(4, "little"))
    data[at : at + 4] = (699).to_bytes(4, "little")
    path.write_bytes(data)
  elif damage == "other":
    path.write_bytes(b"nothing")
  elif damage in ("flags", "method"):
    # Of the first entry in the zip's directory: encrypted, or unknown.
    data[data.index(b"PK\1\2") + {"flags": 8, "method": 10}[damage]] ^= 1
    path.write_bytes(data)
  else:
    path.with_suffix(".sum").unlink()
  again = iam_ondb.load("iam_ondb", folder)
  assert again.fingerprint == first.fingerprint
  assert np.load(path)["points"].max() == 702


def test_a_changed_archive_is_read_anew(folder, cache):
  first = iam_ondb.load("iam_ondb", folder)
  forms = dict(FORMS)
  forms["b02-002"] = ([[[(1, 1), (2, 5)]]], ["Held out"])
  write(folder, content(forms))
  assert iam_ondb.load("iam_ondb", folder).fingerprint != first.fingerprint
  assert len(list(cache.glob("*.npz"))) == 2


def test_a_cache_that_cannot_be_written_does_no_harm(
  folder, tmp_path, monkeypatch
):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("LNRNN_CACHE_DIR", str(tmp_path / "file" / "below"))
  assert (
    iam_ondb.load("iam_ondb", folder).splits["train"].texts[0] == "Hi there"
  )


def test_without_a_home_a_place_to_keep_it_is_asked_for(folder, monkeypatch):
  monkeypatch.delenv("LNRNN_CACHE_DIR")
  monkeypatch.setattr("os.path.expanduser", lambda path: path)
  with pytest.raises(DataError, match="LNRNN_CACHE_DIR: is not set, and"):
    iam_ondb.load("iam_ondb", folder)


# --- What is refused ---

LINE = "lineStrokes/a01/a01-000/a01-000u-01.xml"
SAID = "ascii/a01/a01-000/a01-000u.txt"
GOOD = xml([[(1, 1), (2, 2)]])


@pytest.mark.parametrize(
  ("path", "data", "told"),
  [
    (LINE, GOOD[:-9], "is no whole XML"),
    (LINE, xml([]), "has 0 points; 2 at least"),
    (LINE, xml([[(1, 1)]]), "has 1 points; 2 at least"),
    (LINE, xml([[(3, 4), (3, 4)], [(3, 4)]]), "all its points are the same"),
    (LINE, xml([[(1, 1), ("NaN", 2)]]), "point 2 has x='NaN'; whole numbers"),
    (LINE, xml([[(1, 1), (2, "1e9")]]), "point 2 has y='1e9'; whole numbers"),
    (LINE, xml([[(1, 2**40), (2, 1)]]), f"point 1 has y='{2**40}'"),
    (LINE, xml([[(1, 1), ("9" * 9999, 2)]]), f"has x='{'9' * 39}; whole"),
    (LINE, xml([[(-(2**31), 1), (2**31 - 1, 1)]]), "has x='-2147483648'; wh"),
    (LINE, xml([[(1, 1), (2, 2**20 + 1)]]), "numbers up to 1,048,576 are"),
    (LINE, xml([[(1, 1), (502, 1)]]), "all its offsets are above 500"),
    (LINE, GOOD.replace(b"ISO-8859-1", b"foo"), "unknown encoding: foo"),
    (LINE, GOOD.replace(b"ISO-8859-1", b"big5"), "multi-byte encodings"),
    (LINE, GOOD.replace(b'y="2"', b""), "point 2 has y=None"),
    (LINE, b'<!DOCTYPE a [<!ENTITY b "c">]>' + GOOD[44:], "a document type"),
    (SAID, b"OCR:\nA\n", "has no line CSR:"),
    (SAID, b"CSR:\n\n \n", "its transcription is empty"),
    (SAID, None, "there is no transcription a01-000u.txt"),
  ],
)
@pytest.mark.parametrize("kind", ["xz", "tree"])
def test_a_fault_is_told_in_one_line_with_its_file(
  tmp_path, cache, path, data, told, kind
):
  files = content()
  members = files["ascii-all" if path == SAID else "lineStrokes-all"]
  del members[path]
  if data is not None:
    members[path] = data
  with pytest.raises(DataError) as caught:
    iam_ondb.load("iam_ondb", write(tmp_path / "d", files, kind))
  text = str(caught.value)
  assert told in text and "\n" not in text
  named = LINE if data is None else path
  assert named.rpartition("/")[2] in text
  # Offsets are made of what was read, and that is kept.
  assert "offsets" in told or not list(cache.glob("*"))


def test_offsets_without_a_deviation_are_refused(tmp_path, cache):
  forms = {
    form: ([[[(i * i, 5) for i in range(4)]] for _ in texts], texts)
    for form, (_, texts) in FORMS.items()
  }
  with pytest.raises(DataError, match="offsets of the training split are the"):
    iam_ondb.load("iam_ondb", write(tmp_path / "d", content(forms)))


@pytest.mark.parametrize(
  ("change", "told"),
  [
    (lambda d: (d / "ascii-all.tar.xz").unlink(), "has no ascii-all.tar"),
    (lambda d: (d / "trainset.txt").unlink(), "trainset.txt: cannot be read"),
    (
      lambda d: (d / "trainset.txt").write_text("z99-999"),
      "trainset.txt: names no form whose strokes are there",
    ),
    (
      lambda d: (d / "testset_f.txt").write_text("a01-000u"),
      "has the form a01-000u, which trainset.txt has too",
    ),
    (
      lambda d: (d / "lineStrokes-all.tar.xz").write_bytes(b"no archive"),
      "lineStrokes-all.tar.xz: cannot be unpacked",
    ),
  ],
)
def test_a_fault_of_the_folder_is_told_in_one_line(folder, change, told):
  change(folder)
  with pytest.raises(DataError) as caught:
    iam_ondb.load("iam_ondb", folder)
  assert told in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_sources_and_splittings_are_refused(folder):
  with pytest.raises(
    ConfigError, match=r"data.source: 'iam' .* embedded, iam_"
  ):
    iam_ondb.load("iam", folder)
  with pytest.raises(
    ConfigError, match=r"data.splitting: 'all' .* graves, off"
  ):
    iam_ondb.load("iam_ondb", folder, "all")


# --- The real files ---


def test_the_real_files_have_the_lines_that_are_known(data_dir):
  path = data_dir / "iam_ondb"
  if not path.is_dir():
    pytest.skip(f"no {path}: no real IAM-OnDB")
  data = iam_ondb.load("iam_ondb", data_dir)
  sizes = {name: len(lines.texts) for name, lines in data.splits.items()}
  assert sizes == {"train": 9214, "validation": 1438}
  assert list(data.left_out.values()) == [17, 12]
  train = data.splits["train"]
  assert len(train.offsets) == 5_709_331
  np.testing.assert_allclose(data.mean, [8.296, 0.107], atol=1e-3)
  np.testing.assert_allclose(data.deviation, [41.76, 37.12], atol=0.01)
  inside = np.concatenate([[0], train.offsets[:-1, 2]]) == 0
  inside[train.starts[:-1]] = False
  raw = train.offsets[:, :2] * data.deviation + data.mean
  assert np.abs(raw[inside]).max() <= iam_ondb.MAX_OFFSET + 0.01
  np.testing.assert_allclose(raw, np.rint(raw), atol=0.01)
  rows = iam_ondb.padded(train, 500)
  assert rows["length"].sum() / len(train.offsets) == pytest.approx(
    0.76, abs=0.01
  )
  official = iam_ondb.load("iam_ondb", data_dir, "official")
  assert [len(v.texts) for v in official.splits.values()] == [5355, 1438, 3859]
  # 614.9 points a line were counted in other ways; the first has no offset.
  mean = len(official.splits["train"].offsets) / 5355
  assert mean == pytest.approx(613.9, abs=0.5)
