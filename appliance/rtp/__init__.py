"""RTP without sockets: packets, jitter buffer, telephone-event (RFC 3550, 3551, 4733)."""
