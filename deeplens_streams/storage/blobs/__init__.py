"""Objects by key in any backend: a local folder, memory, S3, GCS or Azure."""
