"""kopf's handlers, the work queue, the sweep, the leader. Nobody else imports `kopf`."""
