#!/usr/bin/env bash
# Runs the tests; sets up what they need first. Arguments go to pytest.
set -euo pipefail

source "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/_setup.sh"
setup_python requirements.txt requirements-dev.txt

exec "$PYTHON" -m pytest "$@"
