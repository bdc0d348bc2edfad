"""``python -m virtex_det.cli``: the same as ``virtex-det``, if that is not on the path."""

from virtex_det_commands import main

if __name__ == "__main__":
    main()
