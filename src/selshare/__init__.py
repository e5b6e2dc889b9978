"""Train many tasks at once, learn during training which belong together, and merge their branches."""

__version__ = "0.1.0"
