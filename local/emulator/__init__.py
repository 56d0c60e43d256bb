"""An emulator of AWS on this machine, and the pump, which takes the place of Lambda."""
