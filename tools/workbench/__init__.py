"""What the demo, the tests and the benchmark share: the chart on a real API server, the operator's process, a real sshd.

Nothing here belongs to the product; `controlplane` brings the cluster.
"""
