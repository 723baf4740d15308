"""Training by a recipe, on one process or many."""
