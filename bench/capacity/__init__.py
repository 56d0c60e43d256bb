"""A simulation of the service against AWS's published limits. ``python -m bench.capacity``.

Nothing here is measured on AWS. Every figure is simulated, or counted from the work for one timer.
"""
