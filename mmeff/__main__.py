"""`python -m mmeff`: the `mmeff` command."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:  # Python puts the current folder first: a torch.py beside a download would be run
        sys.path.pop(0)
    from mmeff.cli import main

    sys.exit(main())
