"""The local socket between the API's processes and the one process that writes."""
