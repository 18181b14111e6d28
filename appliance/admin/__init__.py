"""HTTP: health, metrics, API and pages."""
