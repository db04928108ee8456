"""Web: pages and their small API, people to rows and back.

Takes: HTTP requests with a token (a cookie after log-in, or `Authorization: Bearer`). Gives: pages, JSON, one shape of
error.
Writes: nothing of its own; it calls the rooms as the command line does.
Never: loads torch, shows HTML that a person or a model wrote, asks another server for anything, answers a route without
credentials unless it is the log-in, a static file or /health.
"""

from rlhf.web.app import create_app, is_loopback, serve

__all__ = ["create_app", "is_loopback", "serve"]
