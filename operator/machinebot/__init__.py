"""Machinebot gives machines identities on Kubernetes: short-lived SSH and X.509 credentials, in Secrets, always fresh."""

__version__ = "0.1.0"
