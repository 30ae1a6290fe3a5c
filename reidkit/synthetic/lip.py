"""The 20 labels of LIP human parsing (Gong et al. 2017), numbered as JPPNet writes them.

Left and right are the person's own. A bag has no label: it is background.
"""

from __future__ import annotations

BACKGROUND, HAT, HAIR, GLOVE, SUNGLASSES = 0, 1, 2, 3, 4
UPPER, DRESS, COAT, SOCKS, PANTS = 5, 6, 7, 8, 9
JUMPSUIT, SCARF, SKIRT, FACE = 10, 11, 12, 13
LEFT_ARM, RIGHT_ARM, LEFT_LEG, RIGHT_LEG = 14, 15, 16, 17
LEFT_SHOE, RIGHT_SHOE = 18, 19

COUNT = 20
