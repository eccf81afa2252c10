"""Design tokens: colours and sizes."""

from __future__ import annotations

import flet as ft

ACCENT = ft.Colors.PRIMARY
HIGH = ft.Colors.TERTIARY
URGENT = ft.Colors.ERROR
GOOD = ft.Colors.TERTIARY_FIXED_DIM
MUTED = ft.Colors.ON_SURFACE_VARIANT
HAIRLINE = ft.Colors.OUTLINE_VARIANT
SURFACE = ft.Colors.SURFACE
CARD = ft.Colors.SURFACE_CONTAINER_LOWEST

BODY = 14
SMALL = 12
TITLE = 20
METRIC = 28

RADIUS = 12
GRID = 8
TARGET = 48
