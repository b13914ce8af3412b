"""`make demo`: Machinebot on a real API server, step by step, up to a login over a real SSH. Nothing of the product is here."""
