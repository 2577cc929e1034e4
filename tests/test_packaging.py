"""The package's metadata agrees with the requirement files."""

import re
import tomllib

import pytest


def lines(path) -> list[str]:
  text = path.read_text(encoding="utf-8")
  return [x for x in text.splitlines() if x and not x.startswith("#")]


def name(requirement: str) -> str:
  found = re.match(r"[\w.-]+", requirement)
  assert found, requirement
  return re.sub(r"[-_.]+", "-", found[0]).lower()


@pytest.fixture(scope="module")
def project(repo) -> dict:
  return tomllib.loads((repo / "pyproject.toml").read_text())["project"]


def test_the_requirement_files_are_the_extras(repo, project):
  extras = project["optional-dependencies"]
  runtime = project["dependencies"] + extras["experiments"]
  assert lines(repo / "requirements.txt") == runtime
  for extra in ("dev", "docs"):
    assert lines(repo / f"requirements-{extra}.txt") == extras[extra]


def test_the_lock_pins_every_requirement(repo):
  lock = lines(repo / "requirements.lock.txt")
  assert all("==" in line for line in lock)
  pinned = {name(line) for line in lock}
  for file in ("", "-dev", "-docs"):
    wanted = lines(repo / f"requirements{file}.txt")
    assert {name(line) for line in wanted} <= pinned


def test_no_file_names_an_index(repo):
  for path in repo.glob("requirements*.txt"):
    assert not re.search(r"://|--(extra-)?index|--find", path.read_text())
