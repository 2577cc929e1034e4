"""What the compatibility script installs and runs, without installing it."""

import subprocess
import sys
import zipfile

import pytest

from scripts import compatibility


def test_lowest_holds_each_requirement_at_its_lower_bound():
  wanted = ["jax>=0.10.2,<0.12", "a-b.c[x,y] <3, >= 1.0rc1", "d>=2; os_name"]
  assert compatibility.at_lowest(wanted) == [
    "jax==0.10.2",
    "a-b.c==1.0rc1",
    "d==2",
  ]


@pytest.mark.parametrize(
  "wanted", ["jax", "jax<0.12", "jax; python_version >= '3.12'"]
)
def test_a_requirement_without_a_lower_bound_is_named(wanted):
  with pytest.raises(ValueError, match="has no lower bound") as caught:
    compatibility.at_lowest(["flax>=1", wanted])
  assert repr(wanted) in str(caught.value)


def test_the_core_is_what_pyproject_requires():
  found = compatibility.at_lowest(compatibility.project()["dependencies"])
  assert tuple(x.partition("==")[0] for x in found) == compatibility.CORE


def test_the_tools_have_the_ranges_of_pyproject():
  found = compatibility.tools()
  assert len(found) == len(compatibility.TOOLS)
  for name in compatibility.TOOLS:
    assert any(line.startswith(f"{name}>=") for line in found), name


def test_what_is_left_out_exists(repo):
  for name in compatibility.NEEDS_MORE:
    path, _, test = name.partition("::")
    assert f"def {test}" in (repo / path).read_text(encoding="utf-8"), name


def test_no_file_left_out_is_named_to_pytest():
  found = compatibility.library_tests()
  named = {x for x in found if not x.startswith("--")}
  assert {"tests/test_norms.py", "tests/models"} <= named
  assert not named & set(compatibility.NEEDS_MORE)


@pytest.mark.parametrize(
  ("arguments", "fault"),
  [
    (["python0.0"], "PYTHON python0.0: does not run"),
    ([sys.executable, "--keep={folder}"], "-lowest-library exists already"),
  ],
)
def test_a_mistake_gets_one_line_before_anything_is_made(
  repo, tmp_path, arguments, fault
):
  release = "{}.{}".format(*sys.version_info)
  (tmp_path / f"{release}-lowest-library").mkdir()
  done = subprocess.run(
    [
      sys.executable,
      "scripts/compatibility.py",
      *(x.format(folder=tmp_path) for x in arguments),
    ],
    cwd=repo,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert fault in done.stderr.splitlines()[-1]


def test_the_table_has_a_dash_where_a_cell_did_not_get():
  row = {"python": "3.12", "versions": "lowest", "fault": "venv failed"}
  head, rule, line = compatibility.table([row | {"seconds": 3}]).splitlines()
  assert head.startswith("| python | versions | jax |")
  assert rule == "|" + " --- |" * 9
  assert line == "| 3.12 | lowest |" + " - |" * 6 + " 3 |"


@pytest.mark.long
def test_the_wheel_holds_the_library_alone(repo, tmp_path):
  with (tmp_path / "log").open("w") as log:
    wheel = compatibility.build_wheel(sys.executable, tmp_path / "wheel", log)
  with zipfile.ZipFile(wheel) as archive:
    held = set(archive.namelist())
  folder = repo / "lnrnn"
  files = {*folder.rglob("*.py"), *folder.glob("data/embedded/*")}
  library = {p.relative_to(repo).as_posix() for p in files}
  assert library <= held
  rest = {name for name in held - library if ".dist-info/" not in name}
  assert not rest
  assert wheel.name.endswith("-py3-none-any.whl")
