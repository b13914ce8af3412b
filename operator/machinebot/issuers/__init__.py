"""Asks the servers of platforms: keys of OpenID issuers, requests that a join method wants sent. Judges nothing."""
