"""The edge's pool manager: which backends nginx asks, from the inventory and from what it sees."""
