"""What a Cozy file system means: files, drafts, directories, names.

`cozyfs.vfs.filesystem` is what the layer above talks to.
"""
