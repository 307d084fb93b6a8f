"""The base layer: errors, files, skeletons, geometry, images, codecs. Depends on numpy and OpenCV only."""
