"""The offline server and its commands: the API, the process that fires timers, the emulator."""
