"""Ostiary: a configuration and attestation service that hands programs their secrets once they prove what they are."""

__version__ = "0.1.0"
