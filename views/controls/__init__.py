"""Controls that stand in any Flet app: they import only Flet and declare the narrow Protocol they need."""
