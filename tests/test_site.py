"""The documentation site has every page and every public module.

`./scripts/docs.sh` builds it, and finds links within docs/ that lead nowhere.
"""

import ast
import collections
import pathlib
import re
from types import SimpleNamespace

import pytest
import yaml

import lnrnn
from scripts import docs_hooks

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def targets(nav) -> list[str]:
  """The pages that a navigation names, in order."""
  if isinstance(nav, str):
    return [nav]
  parts = nav.values() if isinstance(nav, dict) else nav
  return [target for part in parts for target in targets(part)]


def slug(heading: str) -> str:
  """The anchor of a heading, as code hosts and the site make it."""
  return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_navigation_has_every_page_once():
  text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
  pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
  assert sorted(targets(yaml.safe_load(text)["nav"])) == sorted(pages)


def test_the_api_reference_has_every_public_module_once():
  named = collections.Counter(
    name
    for page in (DOCS / "api").glob("*.md")
    for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
  )
  modules = set()
  for path in (ROOT / "lnrnn").rglob("*.py"):
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    if not any(part.startswith("_") for part in parts):
      modules.add(".".join(parts))
  assert named == dict.fromkeys(modules, 1)


def test_the_api_reference_lists_what_the_package_exports():
  text = (DOCS / "api/index.md").read_text()
  listed = re.findall(r"\[`(\w+)`\]\[lnrnn\.\1\]", text)
  assert sorted(listed) == sorted(lnrnn.__all__)


def test_docstrings_are_as_the_api_reference_reads_them():
  # It takes several names in an entry for a name and its type, and folds a
  # source whose second line is indented.
  bad = re.compile(r"^ +\w+(?:, \w+)+:.*|^Source: .*\n +\S.*", re.M)
  found = []
  for path in (ROOT / "lnrnn").rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        text = ast.get_docstring(node) or ""
        found += [f"{path.name}: {match[0]}" for match in bad.finditer(text)]
  assert not found


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md"])
def test_links_into_the_repository_hold(file):
  text = (ROOT / file).read_text(encoding="utf-8")
  links = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text)
  assert links
  for target, anchor in links:
    path = ROOT / (target or file)
    assert path.exists(), target
    if anchor:
      headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
      assert anchor in map(slug, headings), f"{target}#{anchor}"


@pytest.mark.parametrize(
  ("source", "site"),
  [
    # What only the tests read.
    ('```bash no-run="long"\nls\n```\n', "```bash\nls\n```\n"),
    ('1. a\n\n   ```python no-run="b"\n', "1. a\n\n   ```python\n"),
    # A file beside docs/, one that does not exist, and pages of the site.
    ("[`a`](../../scripts/docs.sh) b", "`a` b"),
    ("[Results](../../README.md#results)", "Results"),
    ("[a](../../scripts/sdoc.sh)", "[a](../../scripts/sdoc.sh)"),
    ("[a](../guide.md#data)", "[a](../guide.md#data)"),
    ("[a](draw.md) [b](https://c.d)", "[a](draw.md) [b](https://c.d)"),
  ],
)
def test_a_page_becomes_one_of_the_site(source, site):
  page = SimpleNamespace(file=SimpleNamespace(src_uri="results/a.md"))
  config = SimpleNamespace(docs_dir=str(DOCS))
  assert docs_hooks.on_page_markdown(source, page, config) == site
