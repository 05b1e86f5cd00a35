"""What can be wrong with a backup or a restore; messages are those of serving/errors.py: what, got, expected.

PermanentError
└── DamagedBackup       a file is missing or has other bytes than its manifest says
RetryableError
└── DatabaseTool        pg_dump or pg_restore failed: its own words are in the message
"""

from serving.errors import PermanentError, RetryableError


class DamagedBackup(PermanentError):
    code = "damaged_backup"
    http_status = 422


class DatabaseTool(RetryableError):
    code = "database_tool"
