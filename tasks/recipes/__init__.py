"""What a recipe is: the value that decides everything, and the parts it is made of.

The stages stand on this room and know nothing else of a model; the recipes that ship (`tasks/shipped`) and those of
users stand on the stages and are found by reference.
"""
