"""What every wing stands on: data, schemas, provenance, files, plots, errors."""
