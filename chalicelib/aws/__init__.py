"""The AWS engine: DynamoDB keeps the timers, SQS and EventBridge Scheduler wake them."""
