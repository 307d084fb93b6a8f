"""What everything else stands on: errors, files, skeletons, geometry, images, codecs. numpy and OpenCV alone."""
