"""The one DynamoDB table of a stage: timers, id counters, API keys and indexes."""
