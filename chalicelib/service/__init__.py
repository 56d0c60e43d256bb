"""The use cases, and the ports they need: nothing here knows an engine."""
