"""Anchors of a store: places that the holder of its database cannot turn back."""
