"""The plan of the paper: every run of every scale is one that can be run."""

import importlib.util
import pathlib

import pytest

from experiments import claim_list, figures, paper, reproduction, results, sets

CASES = [(name, scale) for name in paper.TASKS for scale in paper.SCALES]


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_every_run_passes_its_checks(name, scale, tmp_path):
  task = paper.TASKS[name]
  runs = reproduction.runs_of(task, scale, tmp_path)
  several = [run for each in runs.values() for run in each]
  assert several or not task.sets
  sets.check(several)
  folders = [run.workdir for run in several]
  assert len(set(folders)) == len(folders), "two sets have a run in common"


@pytest.mark.parametrize("name", paper.TASKS)
def test_the_seeds_of_trials_are_not_reported(name):
  for scale in paper.SCALES:
    seeds: dict[str, set[int]] = {paper.RUNS: set(), paper.TRIALS: set()}
    for each in paper.TASKS[name].sets:
      if plan := each.at.get(scale):
        seeds[each.folder] |= set(plan.seeds)
    assert not seeds[paper.RUNS] & seeds[paper.TRIALS]


@pytest.mark.parametrize("name", paper.TASKS)
def test_what_is_shown_is_run_and_judged_somewhere(name, repo):
  task = paper.TASKS[name]
  sections = {claim.section for claim in claim_list.read()}
  assert set(task.sections) <= sections
  names = {each.name for each in task.sets}
  for shown in task.shown:
    assert set(shown.of) <= names
    for metric in shown.metrics:
      figures.metric(metric)
  for step in task.steps:
    first, second, *_ = step.argv
    module = second if first == "-m" else None
    if module:
      assert importlib.util.find_spec(module)
    else:
      assert pathlib.Path(first.format(root=repo)).is_file()


def test_every_section_of_the_claims_is_somebodys():
  sections = {claim.section for claim in claim_list.read()}
  taken = {s for task in paper.TASKS.values() for s in task.sections}
  assert taken == sections


def test_the_smoke_scale_reads_no_data_of_the_users():
  for task in paper.TASKS.values():
    for each in task.sets:
      assert each.at.get("smoke", paper.SMOKE).fields == "smoke"


def test_the_pages_and_headlines_exist(repo):
  for task in paper.TASKS.values():
    assert (repo / "docs" / "results" / task.page).is_file(), task.page
  claims = claim_list.read()
  for name in results.HEADLINES:
    assert any(c.id == name or c.covers(name) for c in claims), name


def test_the_tables_in_the_docs_are_those_of_the_kept_verdicts():
  for path, text in results.made(results.kept()).items():
    assert isinstance(path, pathlib.Path)
    assert path.read_text("utf-8") == text, (
      f"{path.name}: run python -m experiments.results"
    )


def test_the_readme_is_short(repo):
  assert len((repo / "README.md").read_text().splitlines()) < 200
