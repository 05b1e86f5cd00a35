"""The stages of a release. Each `task.py` is a Flyte shell; the library beside it never imports flytekit."""
