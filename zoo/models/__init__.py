"""The catalogue and what it stands on: rows, backbones, placement, warm start."""
