"""Asks a join API: HTTPS by the standard library alone, for the agent and for operators whose authority is elsewhere."""
