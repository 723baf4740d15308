"""What leaves the house: the model card, the staged folder, the release on the Hub."""
