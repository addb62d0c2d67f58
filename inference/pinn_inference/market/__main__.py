"""`python -m pinn_inference.market FILE …`: are these files good? For those who write them, before they mount them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pinn_inference.market.data import MAX_BYTES, MarketDataError, parse_market_data


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each good file and each fault; 0 if all are good, 1 if not, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m pinn_inference.market", description="Check market data files.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    failed = False
    for path in parser.parse_args(arguments).files:
        try:
            with path.open("rb") as file:
                data = parse_market_data(file.read(MAX_BYTES + 1), file=str(path))
        except (OSError, MarketDataError) as error:
            failed = True
            print(error, file=sys.stderr)
        else:
            sample = ", sample data" if data.sample_data else ""
            print(f"{path}: good, {len(data.instruments)} symbols as of {data.as_of.isoformat()}{sample}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
