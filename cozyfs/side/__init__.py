"""What a Cozy keeps in its storage beside the files of people.

Avatars (`cozyfs.side.avatar`), dynamic assets (`assets`), thumbnails of files (`thumbnails`) and
of the images of notes (`note_images`), icons and previews (`previews`), apps and konnectors
(`apps`); keys, types and metadata are the Cozy server's (cozyfs-storage(5)). All of it is over
`cozyfs.store` alone: nothing here knows a tree, and the contents of files come in as arguments.

What only moves objects is plain functions that block, as those of a store, and make one attempt:
for commands, or for `cozyfs.threads.Caller`. What draws pictures is async, because drawing is
done by a child process (`render`) that the end of the caller must end too.
"""
