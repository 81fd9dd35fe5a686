"""modhaven: the backend of a disaster-tolerant Go module proxy."""

__version__ = "0.1.0"
