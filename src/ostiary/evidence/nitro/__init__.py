"""AWS Nitro Enclaves: attestation documents to verified claims."""
