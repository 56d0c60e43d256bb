"""The AWS engine: DynamoDB keeps the timers."""
