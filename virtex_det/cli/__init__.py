"""The commands, one module each: ``main(arguments)`` takes a command line and raises UserError.

``virtex_det_commands`` lists them and starts them as ``virtex-det NAME``; a clone's ``tools/*.py``
start the same.
"""
