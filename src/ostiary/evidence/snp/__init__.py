"""AMD SEV-SNP: attestation reports to verified claims."""
