"""The variables by which workers find each other: torchrun's own, and the ones that any launcher reads.

The address names the attempt, so that a worker of an older one can never join. A fixed group meets statically,
with ranks; an elastic one through c10d on its first worker, which torchrun forms anew when members come or go.
"""

from flightpath_operator.api.training_job import TrainingJobSpec
from flightpath_operator.names import worker_name
from flightpath_operator.training.job import Job

CHECKPOINT_MOUNT = "/checkpoints"
_MOUNTED = ("pvc://", "nfs://")


def master_address(job: Job) -> str:
    """Name of the first worker of this attempt in the cluster's DNS."""
    return f"{worker_name(job.name, job.state.attempt, 0)}.{job.name}.{job.namespace}.svc"


def worker_variables(job: Job, rank: int) -> dict[str, str]:
    """What one worker of this attempt is told, beside the common environment."""
    spec, group = job.spec, job.group
    processes = max(1, spec.gpus_per_worker)
    number = f"{group.lowest}:{group.highest}" if group.elastic else str(group.size)
    variables = {
        "MASTER_ADDR": master_address(job),
        "MASTER_PORT": str(spec.network.port),
        "NNODES": number,
        "NODE_RANK": str(rank),
        "NPROC_PER_NODE": str(processes),
    }
    if not group.elastic:
        variables["WORLD_SIZE"] = str(group.size * processes)
    if spec.framework == "pytorch":
        variables |= _torchrun(job, rank, number, processes)
    return variables | _reporting(job)


def checkpoint_variables(spec: TrainingJobSpec) -> dict[str, str]:
    """Where the workers save, how often, and what they resume from."""
    checkpoint = spec.checkpoint
    if checkpoint is None:
        return {}
    optional = {
        "FLIGHTPATH_CHECKPOINT_INTERVAL_STEPS": checkpoint.interval_steps,
        "FLIGHTPATH_CHECKPOINT_INTERVAL_SECONDS": checkpoint.interval_seconds,
        "FLIGHTPATH_CHECKPOINT_KEEP": checkpoint.keep,
    }
    return {
        "FLIGHTPATH_CHECKPOINT_URI": checkpoint_address(checkpoint.uri),
        "FLIGHTPATH_RESUME": str(checkpoint.resume),
    } | {name: str(value) for name, value in optional.items() if value is not None}


def checkpoint_address(uri: str) -> str:
    """The address as workers see it: claims and NFS exports are mounted."""
    if not uri.startswith(_MOUNTED):
        return uri
    scheme, _, rest = uri.partition("://")
    # An export is mounted as a whole; of a claim, only the folder is meant.
    folder = rest.partition("/")[2].strip("/") if scheme == "pvc" else ""
    return f"file://{CHECKPOINT_MOUNT}" + (f"/{folder}" if folder else "")


def _torchrun(job: Job, rank: int, number: str, processes: int) -> dict[str, str]:
    common = {"PET_NNODES": number, "PET_NPROC_PER_NODE": str(processes)}
    address, port = master_address(job), str(job.spec.network.port)
    if not job.group.elastic:
        # An agent that restarts its own processes would leave the others behind: the group restarts as a whole.
        static = {"PET_NODE_RANK": str(rank), "PET_MASTER_ADDR": address, "PET_MASTER_PORT": port}
        return common | static | {"PET_MAX_RESTARTS": "0"}
    return common | {
        "PET_RDZV_BACKEND": "c10d",
        "PET_RDZV_ENDPOINT": f"{address}:{port}",
        "PET_RDZV_ID": f"{job.uid}-a{job.state.attempt}",
        # By default each agent asks the DNS whether it is the host, which may not know the first worker yet.
        "PET_RDZV_CONF": f"is_host={int(rank == 0)}",
        # Agents that stay keep the shared store's address from their first round and never tell it to one that comes
        # later: it would wait until both fail (pytorch/pytorch#135712).
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "PET_MAX_RESTARTS": str(job.spec.restart.max_restarts),
    }


def _reporting(job: Job) -> dict[str, str]:
    return {
        "FLIGHTPATH_ATTEMPT": str(job.state.attempt),
        "FLIGHTPATH_PROGRESS_URL": job.settings.progress_url(job.namespace, job.name),
        "FLIGHTPATH_PROGRESS_TOKEN": job.settings.progress_token(job.uid, job.state.attempt),
    }
