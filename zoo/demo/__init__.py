"""A page on which a person tries networks: a picture in, the classes and what the attention did."""
