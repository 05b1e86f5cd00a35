"""Terraform modules of all clouds; the Python beside them writes their documentation."""
