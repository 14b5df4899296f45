"""What deep equilibrium models learn, seen through neural collapse, next to explicit networks."""

__version__ = "0.2.0"
