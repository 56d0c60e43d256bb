"""Webhook Timers: call a URL at a given moment, whatever happens in between."""
