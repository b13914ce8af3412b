"""The join methods: for each, the table of what its proof must say. Pure; who fetches the proof stands elsewhere."""
