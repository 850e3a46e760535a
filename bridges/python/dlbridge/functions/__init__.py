"""Functions of one library's arrays, called with another's. Public in ``dlbridge`` itself."""
