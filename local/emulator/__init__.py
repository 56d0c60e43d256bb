"""An emulator of AWS on this machine, and the pump, which does the work of Lambda for it."""
