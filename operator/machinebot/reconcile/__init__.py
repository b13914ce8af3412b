"""Use-cases: gather what is, decide, act, and say so in status. Knows no kopf."""
