"""HTTP: health and metrics; HTTPS: the trust bundle. Nobody else imports `aiohttp.web`."""
