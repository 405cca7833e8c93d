"""What the rooms (pretrain, transfer, tables) say to each other, and the front door."""
