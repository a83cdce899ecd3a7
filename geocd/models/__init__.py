"""Networks, their weights and the cards that travel with the weights."""
