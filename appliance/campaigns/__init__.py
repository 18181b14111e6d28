"""Outbound campaigns: lists of leads that the box calls, within the law and within its own capacity."""
