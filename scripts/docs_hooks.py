"""What turns the pages of docs/ into those of the site; see mkdocs.yml."""

import pathlib
import re
from typing import Any

# For tests/test_docs.py alone; the site's fences know no such word.
NO_RUN = re.compile(r'^( *```+\w+) no-run="[^"]*"$', re.MULTILINE)
UPWARDS = re.compile(r"\[([^]]*)\]\((\.\./[^)#]*)[^)]*\)")


def on_page_markdown(
  markdown: str, page: Any, config: Any, files: Any = None
) -> str:
  """Rewrites a page before MkDocs reads it.

  A link to a file of the repository that is not part of the site becomes its
  text. One to a file that does not exist stays, so that a strict build fails.

  Args:
    markdown: the page as it stands in docs/.
    page: whose `file.src_uri` is its path in docs/.
    config: whose `docs_dir` is that folder.
    files: of the site; not needed.

  Returns:
    The page for the site.
  """
  docs = pathlib.Path(config.docs_dir).resolve()
  here = docs.joinpath(page.file.src_uri).parent

  def on_the_site(link: re.Match[str]) -> str:
    target = (here / link[2]).resolve()
    outside = target.exists() and not target.is_relative_to(docs)
    return link[1] if outside else link[0]

  return UPWARDS.sub(on_the_site, NO_RUN.sub(r"\1", markdown))
