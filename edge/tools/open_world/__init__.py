"""The open world: a model searches a catalogue for tools, chooses some, and acts with these alone (ToolOmni's loop).

profile     tags, prompts and limits, from a data file
selection   the text of a choice to names
finding     phase 1: searches and the choice
acting      phase 2: calls until Finish
simulator   tools that answer the same to the same call
evaluate    both phases over a file of requests
"""
