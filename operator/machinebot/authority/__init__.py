"""The certificate authority: CA keys and their generations, what is signed, joins and issues, the trust bundle. No I/O."""
