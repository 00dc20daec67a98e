"""Side storage: what a Cozy keeps beside the files of its instances, one module or package each.

All of it is objects and documents over `cozyfs.store`; nothing here knows the tree, the index or
the mount.
"""
