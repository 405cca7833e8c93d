"""The room's speed, measured against the obvious way of doing the same."""
