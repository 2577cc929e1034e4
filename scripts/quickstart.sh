#!/usr/bin/env bash
# Trains the permutation-invariant MNIST network with layer, batch and no norm
# at batch sizes 128 and 4 on the embedded digits, and draws one figure and one
# table. Sets up what it needs first. --fresh trains anew; further arguments go
# to experiments/compare.py.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/_setup.sh"
setup_python requirements.txt
source "$here/cpu_env.sh"

exec "$PYTHON" -m experiments.compare \
  --config=configs/mnist_mlp.py \
  --vary=norm=layer,batch,none --vary=batch_size=128,4 \
  --workdir=runs/quickstart "$@"
