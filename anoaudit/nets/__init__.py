"""Building blocks: input layers, MLPs, timm backbones, the fixed filter bank. Tables never import timm."""
