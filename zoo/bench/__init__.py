"""How fast a network is beside others: taking turns, in images a second, with the memory that it takes."""
