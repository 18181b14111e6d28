"""Who answers which number, and what the conversation there is."""
