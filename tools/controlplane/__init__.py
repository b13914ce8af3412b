"""A real Kubernetes control plane for tests, the demo and the benchmark: built from pinned Go modules, run on loopback.

`binaries.ensure()` finds or builds the programs with the standard library alone; `cluster.start_control_plane()` runs them.
Only `cluster` and `pki` need a package from outside (`cryptography`), so nothing is imported here.
"""
