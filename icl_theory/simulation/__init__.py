"""One run from a config: trained, measured, and predicted where a theory applies."""
