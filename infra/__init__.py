"""What Chalice does not make, and the commands that bring a stage up and take it down."""
