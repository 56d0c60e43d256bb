"""The error of the commands that deploy."""


class DeployError(Exception):
    """A stage cannot be deployed or removed as asked. The message says what to do."""
