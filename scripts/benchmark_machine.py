"""The machine that a benchmark runs on; the standard library alone."""

import contextlib
import datetime
import os
import pathlib
import platform
import subprocess
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]


def processors() -> list[int]:
  """Those that we may use."""
  if hasattr(os, "sched_getaffinity"):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def machine() -> dict[str, Any]:
  """Where and when this was measured."""
  cpu = platform.processor() or platform.machine()
  with contextlib.suppress(OSError):
    info = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line for line in info.splitlines() if "model name" in line]
    cpu = names[0].partition(":")[2].strip() if names else cpu

  def git(*words):
    with contextlib.suppress(OSError):
      done = subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True
      )
      return done.stdout.strip()

  return {
    "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "commit": git("rev-parse", "HEAD"),
    "changed": git("status", "--porcelain", "--untracked-files=no") != "",
    "system": platform.platform(),
    "cpu": cpu,
    "cpus": os.cpu_count(),
    "python": platform.python_version(),
    # Much above 0, something else is running: the numbers are worth less.
    "load": round(os.getloadavg()[0], 1),
  }
