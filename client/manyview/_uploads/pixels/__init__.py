"""Arrays and PIL images as encoded images. PIL is used only if the caller has imported it.

It imports nothing else of ours.

- `encoding`: choose the file that an image travels as. `png`: PNG as the client writes and reads it.
- `arrays`: numpy arrays as samples. `pil_images`: PIL images as samples, or as the file they were opened from.
"""
