"""The training harness: runs that can be interrupted, and give the same numbers however they are started."""
