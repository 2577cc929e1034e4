# shellcheck shell=bash
# Sourced by the scripts beside it. `setup_python FILE...` makes an environment
# that has these requirement files and lnrnn itself, changes to the repository
# root, and sets PYTHON. Where nothing changed since the last call it returns at
# once.
#
# The environment is the active one (venv or conda), else .venv in the
# repository root. .venv gets the versions of requirements.lock.txt; an active
# environment is yours, so there only the ranges of the requirement files hold.

fail() {
  echo "$*" >&2
  exit 1
}

# True if the interpreter $1 runs, and is new enough.
is_python() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Prints the first usable interpreter on PATH.
find_python() {
  local name found=""
  for name in python3 python python3.13 python3.12 python3.11; do
    if is_python "$name"; then
      command -v "$name"
      return
    fi
    found="${found:-$("$name" --version 2>/dev/null)}"
  done
  fail "lnrnn needs Python 3.11 or newer on PATH;" \
    "found ${found:-none}. Install one and call this script again."
}

# Installs with uv where it is there and works, else with pip.
install() {
  if command -v uv >/dev/null; then
    uv pip install --quiet --python "$PYTHON" "$@" && return
    echo "uv could not install; trying pip." >&2
  fi
  # An environment made by uv has no pip.
  "$PYTHON" -m pip --version >/dev/null 2>&1 ||
    "$PYTHON" -m ensurepip >/dev/null
  "$PYTHON" -m pip install --quiet --disable-pip-version-check "$@"
}

setup_python() {
  ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
  cd "$ROOT"

  local env="" file args=()
  # conda's "base" is active in every shell and is no place to install into.
  if [ -n "${VIRTUAL_ENV:-}" ]; then
    env="$VIRTUAL_ENV"
  elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ]; then
    env="$CONDA_PREFIX"
  fi

  if [ -n "$env" ]; then
    PYTHON="$env/bin/python"
    is_python "$PYTHON" || fail "lnrnn needs Python 3.11 or newer; the active" \
      "environment $env has $("$PYTHON" --version 2>/dev/null || echo none)."
  else
    env="$ROOT/.venv"
    PYTHON="$env/bin/python"
    args=(-c requirements.lock.txt)
    # A half-made environment, or one whose interpreter is gone, is made anew.
    if [ -e "$env/.installing" ] || ! is_python "$PYTHON"; then
      local base
      base="$(find_python)" || exit
      echo "Making .venv with $("$base" --version)." >&2
      rm -rf "$env"
      make_venv "$base" "$env"
    fi
  fi

  # One stamp a set of files: its name says which, its text in what state.
  local stamp state
  stamp="$env/.lnrnn-$(printf '%s' "$*" | tr -c 'a-z.\n' '+')"
  state="$ROOT $("$PYTHON" --version) $(
    cat "$@" requirements.lock.txt pyproject.toml scripts/_setup.sh | cksum
  )"
  if [ "$(cat "$stamp" 2>/dev/null)" = "$state" ]; then return; fi

  for file in "$@"; do args+=(-r "$file"); done
  echo "Installing into $env (about a minute; later calls skip this)." >&2
  touch "$env/.installing"
  install "${args[@]}" && install --no-deps -e . ||
    fail "The installation failed, see above. Call this script again to retry."
  rm "$env/.installing"
  printf '%s\n' "$state" >"$stamp"
}

make_venv() {
  if command -v uv >/dev/null; then
    uv venv --quiet --python "$1" "$2" && return
  fi
  "$1" -m venv "$2" ||
    fail "$1 cannot make a virtual environment: install uv or python3-venv."
}
