"""The errors of provisioning that are neither Terraform's nor the policy's.

ClusterError
├── UnknownEnvironment   no folder of Terraform has that name
├── NotApproved          nobody, or somebody of another plan, said yes
├── PlanChanged          what would be applied is not what was approved
├── InstallFailed        kubectl refused manifests, or was refused
├── NotReady             what was installed did not become available in time
└── Drifted              a region is not as it was applied
"""

from serving import errors as base


class ClusterError(base.FlightpathError):
    code = "cluster"


class UnknownEnvironment(ClusterError, base.NotFound):
    code = "cluster_environment"


class NotApproved(ClusterError, base.InvalidInput):
    code = "cluster_not_approved"


class PlanChanged(ClusterError, base.Conflict):
    code = "cluster_plan_changed"


class InstallFailed(ClusterError, base.PermanentError):
    code = "cluster_install"


class NotReady(ClusterError, base.TimedOut):
    code = "cluster_not_ready"


class Drifted(ClusterError, base.PermanentError):
    code = "cluster_drifted"
