"""One file a join method: finds the proof where the method's platform puts it. Found by name, and loaded when it is needed."""
