"""The operator's API: pydantic models that are both the reader of specs and the one source of the CRDs."""
