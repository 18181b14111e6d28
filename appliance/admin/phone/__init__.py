"""The browser phone: a page that calls any line from a microphone, and what it reads of the call."""

from appliance.admin.phone.pages import PhonePages

__all__ = ["PhonePages"]
