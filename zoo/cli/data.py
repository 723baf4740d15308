"""Verbs about data."""

import json
from dataclasses import asdict

import click

from zoo.printable import printable, printable_json


@click.command()
@click.argument("data", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON.")
def check_data(data: str, as_json: bool) -> int:
    """Look at every image of a data set before training on it.

    DATA is named as in a recipe. The exit code is 1 if there are problems.
    """
    from zoo.data.check import check_data as check

    report = check(data)
    if as_json:
        print(printable_json(json.dumps(asdict(report), ensure_ascii=False)))
    else:
        print("\n".join(map(printable, report.text().splitlines())))
    return 1 if report.problems else 0
