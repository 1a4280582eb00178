"""Loop IR to LLVM text for CPUs; `module.emit` is the entry."""
