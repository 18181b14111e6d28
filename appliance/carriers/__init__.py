"""Protocols that carry a call's audio over a connection instead of RTP. PURE."""
