"""Protocols: a module fixes the network, its input's resize and scaling, the features and the square root of FD.

A number is only comparable with numbers of the same protocol: the four of FID differ in the second digit on the same
images. What the networks are given is the same whoever calls, since images reach a protocol as uint8.
"""
