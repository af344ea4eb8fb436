"""What holds the images once they are read.

`store` defines the interface and the store in memory, `mapped` the store on disk, `drawn_store` the
one that draws and `tensors` the same on a device. `cache` fills the store on disk with what
`decode` reads from files, and `thumbnails` shrinks images. `writing` has what both write with.
"""
