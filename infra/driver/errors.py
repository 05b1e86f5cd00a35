"""The errors of the Terraform driver, one tree, each saying what, got and expected.

    TerraformError                what Terraform said lies in `diagnostics`, what an apply had done in `done`
    ├── MissingBinary             no terraform on the PATH of the call
    ├── DirectoryLocked           another process drives this directory: `holder_pid`
    ├── InvalidConfiguration      the .tf files do not hold, or the directory is not there
    ├── InvalidVariable           undeclared, missing, of a wrong type, or refused by a validation block
    ├── NotConfirmed              a destroy without its token, or with another's
    ├── InitFailed                a provider, module or backend is missing, or init has not been run
    ├── CredentialsExpired        the cloud refused who we are; new credentials, then plan and apply again
    ├── StateLocked               another run holds the state: `who`, `since`, `lock_id`
    ├── StalePlan                 the state, the configuration or the plan file moved on since the plan
    ├── PlanFailed                a read (plan, output, state) failed for another reason; nothing was changed
    ├── ApplyFailed               a part was applied: `done`, `failed`; plan and apply again resume
    └── TimedOut                  ended at its limit: `forced` tells whether by SIGKILL (its lock may remain)

Each is permanent or retryable by its second base, as everywhere in Flightpath.
"""

from infra.driver.progress import Diagnostic
from serving import errors as base


class TerraformError(base.FlightpathError):
    code = "terraform"

    def __init__(
        self,
        what: str,
        *,
        got: object = None,
        expected: object = None,
        diagnostics: tuple[Diagnostic, ...] = (),
        done: tuple[str, ...] = (),
    ) -> None:
        super().__init__(what, got=got, expected=expected)
        self.diagnostics = diagnostics
        self.done = done


class MissingBinary(TerraformError, base.NotFound):
    code = "terraform_missing"


class DirectoryLocked(TerraformError, base.Conflict):
    code = "terraform_directory_locked"
    holder_pid: int | None = None


class InvalidConfiguration(TerraformError, base.InvalidInput):
    code = "terraform_configuration"


class InvalidVariable(TerraformError, base.InvalidInput):
    code = "terraform_variable"


class NotConfirmed(TerraformError, base.InvalidInput):
    code = "terraform_not_confirmed"


class InitFailed(TerraformError, base.PermanentError):
    code = "terraform_init"


class CredentialsExpired(TerraformError, base.Unauthorized):
    code = "terraform_credentials"


class StateLocked(TerraformError, base.Conflict):
    code = "terraform_state_locked"
    who: str = ""
    since: str = ""
    lock_id: str = ""


class StalePlan(TerraformError, base.Conflict):
    code = "terraform_stale_plan"


class PlanFailed(TerraformError, base.RetryableError):
    code = "terraform_plan"


class ApplyFailed(TerraformError, base.PermanentError):
    code = "terraform_apply"
    failed: tuple[str, ...] = ()


class TimedOut(TerraformError, base.TimedOut):
    code = "terraform_timed_out"
    forced: bool = False
