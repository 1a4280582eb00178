"""Code generation: loop IR to machine-level text. One folder for each kind of device."""
