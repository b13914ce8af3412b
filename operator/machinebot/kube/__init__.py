"""The API server: requests, Secrets, tokens, the Lease, Events, watches of metadata. Nobody else imports `kubernetes`."""
