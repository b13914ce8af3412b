"""HTTP: health and metrics. Nobody else imports `aiohttp.web`."""
