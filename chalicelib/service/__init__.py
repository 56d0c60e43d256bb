"""The use cases, and the ports through which they use an engine. No engine is imported here."""
