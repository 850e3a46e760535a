"""Beyond one process: shared blocks, what travels beside them, and pickles without copies."""
