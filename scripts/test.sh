#!/usr/bin/env bash
# Runs the tests, two at a time; sets up what they need first. Arguments go to
# pytest: `-n 0` runs them one by one, and shows what they print with `-s`.
set -euo pipefail

source "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/_setup.sh"
setup_python requirements.txt requirements-dev.txt

# A file's tests stay together, since they share what takes long to make.
exec "$PYTHON" -m pytest -n 2 --dist loadfile "$@"
