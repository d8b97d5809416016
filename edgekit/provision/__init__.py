"""What targets need, prepared into a cache: system roots, wheels, browsers. One file per target family."""
