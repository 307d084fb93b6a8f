"""From images to poses."""
