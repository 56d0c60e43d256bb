"""The AWS resources that Chalice does not make, and the commands that deploy and remove a stage."""
