"""One file a join method, each with a constant `METHOD`; the registry finds them."""
