"""``modhaven purge``: what a host keeps of modules, removed: the store's part, the caches' part."""
