r"""Times ours beside what else a user could pick, in turn, in one run.

  python scripts/benchmark.py TASK [--torch_python=PATH] [--out=FILE.json]

The tasks are mnist_mlp, whole training steps of a small network; rnn, a
layer-normalised LSTM or GRU layer forward and backward; convnet, draw,
handwriting and skip_thoughts, an update of these models. See
`python scripts/benchmark.py TASK --help`.

The contenders run in processes of their own, on the same processors and with
as many threads. They are timed in turn, round after round (A B C A B C ...);
the tables give medians and quartiles over the rounds, and the median of the
rounds' ratios. Before, they must be found to do the same work.

Ours runs under scripts/cpu_env.sh, as in the other scripts. PyTorch is tried
with and without these settings, and has what suits it better. It need not be
installed; --torch_python names the Python of another environment.

Exit codes: 0 done, 2 something the user can mend, said in one line.
"""

import argparse
import json
import pathlib

import benchmark_common as common
import benchmark_convnet as convnet
import benchmark_draw as draw
import benchmark_handwriting as handwriting
import benchmark_machine
import benchmark_mnist_mlp as mnist_mlp
import benchmark_rnn as rnn
import benchmark_skip_thoughts as skip_thoughts
import benchmark_update as update

TASKS = {
  "convnet": convnet,
  "draw": draw,
  "handwriting": handwriting,
  "mnist_mlp": mnist_mlp,
  "rnn": rnn,
  "skip_thoughts": skip_thoughts,
}


class _Parser(argparse.ArgumentParser):
  """Tells a fault in one line."""

  def __init__(self, **given):
    kind = argparse.RawDescriptionHelpFormatter
    super().__init__(formatter_class=kind, allow_abbrev=False, **given)

  def error(self, message: str):
    self.exit(2, f"error: {message}\n")


def _list_of(kind, allowed=None):
  """Reads "a,b" into a list of `kind`, each among or above `allowed`."""

  def read(text):
    values = [kind(part) for part in text.split(",")]
    for value in values:
      if isinstance(allowed, tuple) and value not in allowed:
        raise argparse.ArgumentTypeError(
          f"{value!r} is not one of {', '.join(allowed)}"
        )
      if kind is int and value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return values

  read.__name__ = f"list of {kind.__name__}"
  return read


def _positive(kind):
  def read(text):
    if not kind(text) > 0:
      raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return kind(text)

  read.__name__ = kind.__name__
  return read


def _cases(text):
  try:
    return [rnn.Case.of(part) for part in text.split(",")]
  except ValueError as e:
    raise argparse.ArgumentTypeError(str(e)) from None


def _sizes(text):
  try:
    return [(part, skip_thoughts.case_of(part)) for part in text.split(",")]
  except ValueError as e:
    raise argparse.ArgumentTypeError(str(e)) from None


def parser() -> argparse.ArgumentParser:
  """The command line: a subcommand for each task."""
  top = _Parser(description=__doc__)
  tasks = top.add_subparsers(dest="task", required=True, metavar="TASK")

  def task(name, *, threads, seconds, contenders):
    told = TASKS[name].__doc__
    add = tasks.add_parser(name, description=told).add_argument
    add("--threads", type=_positive(int), default=threads)
    add("--rounds", type=_positive(int), default=7, help="Turns of each.")
    add("--seconds", type=_positive(float), default=seconds, help="Of a turn.")
    add("--torch_python", help="Python with PyTorch, if not this one.")
    add("--out", type=pathlib.Path, help="JSON file to write.")
    names = tuple(TASKS[name].CONTENDERS)
    add(
      "--contenders",
      type=_list_of(str, names),
      default=contenders,
      help=f"Of {', '.join(names)}; lnrnn always takes part.",
    )
    return add

  add = task(
    "mnist_mlp",
    threads=min(2, len(benchmark_machine.processors())),
    seconds=1.0,
    contenders=["torch_fused", "torch_default"],
  )
  add("--norms", type=_list_of(str, mnist_mlp.NORMS), default=mnist_mlp.NORMS)
  add("--batch_sizes", type=_list_of(int), default=[128, 4])
  add("--hidden", type=_list_of(int), default=[1000, 1000])

  add = task("rnn", threads=1, seconds=0.5, contenders=rnn.DEFAULT)
  add(
    "--cases",
    type=_cases,
    default=[rnn.Case.of(name) for name in rnn.CASES],
    help=f"Of {', '.join(rnn.CASES)}, or KIND:BATCH:STEPS:INPUT:HIDDEN with"
    " KIND lstm or gru.",
  )
  add("--device", choices=("cpu", "gpu"), default="cpu")
  add(
    "--precision",
    choices=rnn.PRECISIONS,
    default="float32",
    help="Of the matrix products on a GPU, of all contenders.",
  )
  add = task("draw", threads=1, seconds=1.0, contenders=[*draw.CONTENDERS])
  add("--norms", type=_list_of(str, update.NORMS), default=update.NORMS)
  add("--batch_sizes", type=_list_of(int), default=[128])
  add("--glimpses", type=_positive(int), default=64)

  contenders = [*handwriting.CONTENDERS]
  add = task("handwriting", threads=1, seconds=2.0, contenders=contenders)
  add(
    "--parts",
    type=_list_of(str, handwriting.PARTS),
    default=["update"],
    help=f"Of {', '.join(handwriting.PARTS)}.",
  )
  add("--norms", type=_list_of(str, update.NORMS), default=update.NORMS)
  add("--batch_size", type=_positive(int), default=8)
  add("--points", type=_positive(int), default=500, help="Of an update.")
  add("--sample_points", type=_positive(int), default=600)
  add("--features", type=_positive(int), default=400)

  contenders = [*skip_thoughts.CONTENDERS]
  threads = min(2, len(benchmark_machine.processors()))
  add = task(
    "skip_thoughts", threads=threads, seconds=1.0, contenders=contenders
  )
  add(
    "--sizes",
    type=_sizes,
    default=[(name, skip_thoughts.case_of(name)) for name in ["paper"]],
    help=f"Of {', '.join(skip_thoughts.SIZES)}, or"
    f" {':'.join(skip_thoughts.FIELDS)}.",
  )

  contenders = [*convnet.CONTENDERS]
  add = task("convnet", threads=threads, seconds=0.5, contenders=contenders)
  add("--norms", type=_list_of(str, convnet.NORMS), default=convnet.NORMS)
  add("--batch_size", type=_positive(int), default=100)
  add("--widths", type=_list_of(int), default=[16, 32])
  add("--depth", type=_positive(int), default=2)

  # All flags under --help, which tests/test_docs.py reads.
  usages = (task.format_usage() for task in tasks.choices.values())
  top.epilog = "".join(usages)
  return top


def main() -> None:
  """Runs the subcommand."""
  top = parser()
  options = top.parse_args()
  names = [n for n in options.contenders if n != "lnrnn"]
  options.contenders = ["lnrnn", *dict.fromkeys(names)]
  there = benchmark_machine.processors()
  options.cpus = there[: options.threads]
  if len(options.cpus) < options.threads:
    top.error(f"--threads={options.threads}: there are {len(there)} processors")
  if options.out and not options.out.absolute().parent.is_dir():
    top.error(f"--out={options.out}: there is no such folder")
  try:
    found = TASKS[options.task].run(options)
  except common.Fault as e:
    top.error(str(e))
  if options.out:
    text = json.dumps(found, indent=1) + "\n"
    options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
  main()
