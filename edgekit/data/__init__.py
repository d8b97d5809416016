"""Data sets from files or the hub, by digest."""
