"""The same joins and outputs outside of a cluster: credentials in directories, always fresh. It needs no Kubernetes client."""
