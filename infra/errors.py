"""What can go wrong while a stage is deployed, told in one line."""


class DeployError(Exception):
    """A stage cannot be deployed or removed as asked; the message says what to do."""
