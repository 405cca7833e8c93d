"""What measures the machine: how long a thing takes here, and against what."""
