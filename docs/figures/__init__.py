"""The figures of the pages on kernels: ``python -m docs.figures`` draws all of them again."""
