"""The codec: between images and the latents that Kandinsky's decoder draws."""
