"""An image becomes a loss, a loss a backbone."""
