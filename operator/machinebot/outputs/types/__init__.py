"""One module for each type of output; each defines `OUTPUT`. `machinebot.outputs.registry` finds them."""
