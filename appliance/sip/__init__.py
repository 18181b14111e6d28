"""SIP without sockets: bytes and the time in, messages, events and timers out (RFC 3261)."""
