"""Webhook Timers: call a URL at a given time, even if machines or receivers fail in between."""
