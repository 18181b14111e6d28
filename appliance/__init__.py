"""The appliance: one box that answers and places phone calls with a voice agent."""

__version__ = "0.1.0"
