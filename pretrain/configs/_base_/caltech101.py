"""Photographs: Caltech-101 scaled to a short side of 128 px; nearly as many iterations as on the scenes."""

dataset = dict(name="caltech101", root="data/caltech101", images=7276, classes=101)
epochs = 4
