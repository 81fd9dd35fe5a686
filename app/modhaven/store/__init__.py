"""Where verified modules are kept: the protocol in base, the disk in disk."""
