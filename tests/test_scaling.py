"""What docs/scaling.md says of schedulers, against the code that reads it."""

import inspect
import pathlib
import re
import subprocess
import types

from jax._src import clusters, distributed
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")


def named(scheduler):
  """The variables that the page's table names for a scheduler."""
  (row,) = re.findall(rf"^\| {scheduler} \|(.*)$", TEXT, re.MULTILINE)
  return set(re.findall(r"\b[A-Z]+_[A-Z_a-z]+\b", row))


@pytest.fixture
def joined(monkeypatch):
  """(environment) -> what JAX makes of it, by the cluster it detects."""
  for name in ("JAX_COORDINATOR_PORT", "KUBERNETES_SERVICE_HOST"):
    monkeypatch.delenv(name, raising=False)
  for cluster in (clusters.SlurmCluster, clusters.OmpiCluster):
    for name in re.findall(r"= '(\w+_\w+)'", inspect.getsource(_of(cluster))):
      monkeypatch.delenv(name, raising=False)

  def detect(environment):
    for name, value in environment.items():
      monkeypatch.setenv(name, value)
    return clusters.ClusterEnv.auto_detect_unset_distributed_params(
      None, None, None, None, None, 1
    )

  return detect


def _of(cluster):
  return inspect.getmodule(cluster)


def test_slurm_is_found_by_the_variables_that_are_named(joined):
  environment = {
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_NODELIST": "node[007-008,011]",
    "SLURM_NTASKS": "12",
    "SLURM_PROCID": "6",
    "SLURM_LOCALID": "2",
  }
  assert named("Slurm") == set(environment)
  assert joined(environment) == ("node007:61441", 12, 6, [2])


def test_open_mpi_4_is_found_by_the_variables_that_are_named(joined):
  environment = {
    "OMPI_MCA_orte_hnp_uri": "686882816.0;tcp://192.0.2.2:52495",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
  }
  assert named("Open MPI 4") == set(environment)
  address, *rest = joined(environment)
  assert address.startswith("192.0.2.2:") and rest == [8, 5, [1]]


def test_the_variables_that_override_are_read_and_no_others():
  read = inspect.getsource(distributed) + inspect.getsource(
    _of(clusters.ClusterEnv)
  )
  (said,) = re.findall(r"\n(`JAX_COORDINATOR_ADDRESS`.*?) override", TEXT, re.S)
  for name in re.findall(r"JAX_\w+", said):
    assert f"'{name}'" in read or f'"{name}"' in read
  assert "JAX_NUM_PROCESSES" not in read and "JAX_PROCESS_ID" not in read


@pytest.fixture
def manifests():
  """{kind: object} of the Kubernetes manifest."""
  yaml = pytest.importorskip("yaml")  # Comes with pre-commit.
  (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
  return {found["kind"]: found for found in yaml.safe_load_all(text)}


def test_jax_finds_the_processes_of_the_kubernetes_job(manifests, monkeypatch):
  job, service = manifests["Job"], manifests["Service"]
  name, template = job["metadata"]["name"], job["spec"]["template"]
  assert job["spec"]["completionMode"] == "Indexed"
  assert job["spec"]["completions"] == job["spec"]["parallelism"]
  assert service["spec"]["clusterIP"] == "None"
  # Kubernetes labels the pods so.
  assert service["spec"]["selector"] == {"job-name": name}
  pod = types.SimpleNamespace(
    spec=types.SimpleNamespace(subdomain=template["spec"]["subdomain"])
  )
  cluster = clusters.K8sCluster
  for part, value in {
    "_pod": pod,
    "_controller": types.SimpleNamespace(kind="Job"),
    "_job": types.SimpleNamespace(
      metadata=types.SimpleNamespace(name=name, labels={}),
      spec=types.SimpleNamespace(parallelism=job["spec"]["parallelism"]),
    ),
  }.items():
    monkeypatch.setattr(cluster, part, lambda value=value: value)
  monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
  address = cluster.get_coordinator_address(None, None)
  assert address == f"{name}-0.{service['metadata']['name']}:55527"
  assert f"port 55527 of the pod `{name}-0`" in TEXT
  assert (cluster.get_process_count(), cluster.get_process_id()) == (2, 1)


def test_the_kubernetes_role_allows_what_jax_asks(manifests):
  source = inspect.getsource(clusters.K8sCluster)
  asked = set(re.findall(r"_api\.(list|read)_namespaced_(\w+)\(", source))
  assert asked == {("list", "pod"), ("read", "job"), ("list", "service")}
  allowed = {
    (verb, resource)
    for rule in manifests["Role"]["rules"]
    for verb in rule["verbs"]
    for resource in rule["resources"]
  }
  verbs = {"list": "list", "read": "get"}
  assert allowed >= {(verbs[verb], f"{what}s") for verb, what in asked}
  account = manifests["ServiceAccount"]["metadata"]["name"]
  assert [s["name"] for s in manifests["RoleBinding"]["subjects"]] == [account]
  spec = manifests["Job"]["spec"]["template"]["spec"]
  assert spec["serviceAccountName"] == account


def test_the_kubernetes_command_is_one_of_ours(manifests):
  from lnrnn.training.config import load_config

  (container,) = manifests["Job"]["spec"]["template"]["spec"]["containers"]
  start = ["python", "-m", "experiments.train", "--distributed"]
  assert container["command"][:4] == start
  config, workdir = container["command"][4:]
  load_config(f"{ROOT}/{config.removeprefix('--config=')}")
  assert workdir.startswith("--workdir=")


@pytest.mark.parametrize("name", ["train.sbatch", "requeue.sh"])
def test_the_batch_scripts_are_good_bash(name):
  path = ROOT / "scripts" / name
  subprocess.run(["bash", "-n", path], check=True)
  text = path.read_text()
  head = text.partition("srun --")[0]
  # Slurm reads its options up to the first command only.
  assert text.count("\n#SBATCH") == head.count("\n#SBATCH")
