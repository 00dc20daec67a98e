"""The edge to the kernel: pyfuse3's requests become calls of the vfs, errors become errnos."""
