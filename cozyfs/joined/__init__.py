"""What joins a mounted tree with the storage beside it: `cozyfs.vfs` and `cozyfs.side`.

Neither of the two knows the other, so what needs both is here, one floor above them and below
`cozyfs.mount`: the views ``/.thumbs`` (`thumbnail_view`, `note_view`) and ``/.cozy_apps``,
``/.cozy_konnectors`` (`app_view`), whose files are read through a small cache (`blocks`); the
making of thumbnails while the mount runs (`thumbnailer`), and what is asked about them on the
control socket (`thumbnail_requests`); what goes with a document that is removed (`beside`); and
icons and previews asked for on the control socket (`preview_requests`).
"""
