"""Running machine code: the processor, code generation, threads, memory, the cache, executables.

Nothing here knows either IR: this folder is handed LLVM text and signatures.
"""
