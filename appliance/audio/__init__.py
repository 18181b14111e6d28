"""Codecs, levels and concealment over 8 kHz signed 16-bit samples; no state outside the objects given."""
