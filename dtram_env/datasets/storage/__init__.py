"""What holds the images once they are read: stores in memory, on disk, drawn and on a device.

`store` defines their interface; `cache` fills the store on disk with what `decode` reads.
"""
