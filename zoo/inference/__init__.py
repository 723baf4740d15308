"""A trained model by one string; evaluate and predict with it."""
