"""What people write: one model a kind, with the words, limits and rules that the CRDs are generated from.

Nothing here knows the API server, and nothing here decides: see `machinebot.policy`.
"""
