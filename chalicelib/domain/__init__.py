"""The rules: what a timer is, when it is tried again, which URL may be called. No I/O."""
