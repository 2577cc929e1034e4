#!/usr/bin/env bash
# Builds the documentation into site/, where a warning is an error; `serve`
# shows it at http://127.0.0.1:8000 and builds it anew when a page changes.
set -euo pipefail

source "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/_setup.sh"
case "${*:-build}" in
  build) command=(build --strict) ;;
  serve) command=(serve) ;;
  *) fail "docs.sh: \"$*\" is not understood; allowed are build and serve." ;;
esac
setup_python requirements-docs.txt

# The theme's advertisement of what comes after MkDocs.
export NO_MKDOCS_2_WARNING=1
exec "$PYTHON" -m mkdocs "${command[@]}"
