"""The loop IR: nodes, verifier, text, and the interpreter that defines its meaning."""
