"""The networks: a ResNet backbone and PoseResNet, which puts three deconvolutions on top of it."""
