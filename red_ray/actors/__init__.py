"""The Ray side: each actor is a plain class of another package with a few lines beside it."""
