"""From a `Recording` to a labelled xarray Dataset."""
