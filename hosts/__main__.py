"""`python -m hosts`: hosts to try things on, until Ctrl-C.

python -m hosts up ams fra wit      boots them, says how to reach them, and takes orders:
                                    kill NAME, boot NAME, replace NAME, cut NAME, heal NAME
"""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from hosts.commands import HostsFailed
from hosts.image import image
from hosts.lab import Hosts

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command("image")
def make_image() -> None:
    """Make the image that hosts start from, if it is not there (about a minute)."""
    print(image())


@app.command()
def up(names: Annotated[list[str], typer.Argument(help="What they are called.")]) -> None:
    """Boot hosts, and take orders on standard input until its end.  Then all is removed."""
    with Hosts(names) as hosts:
        hosts.boot()
        for name, machine in hosts.machines.items():
            print(f"{name}: ssh -i {hosts.key} root@{machine.address}")
        orders: dict[str, Callable[[str], None]] = {
            "kill": lambda name: hosts.machines[name].kill(),
            "off": lambda name: hosts.machines[name].shut_down(),
            "boot": lambda name: hosts.boot(name),
            "replace": hosts.replace,
            "cut": hosts.cut,
            "heal": hosts.heal,
        }
        for line in sys.stdin:
            verb, _, name = line.strip().partition(" ")
            if verb not in orders or name not in hosts.machines:
                print(f"orders: {', '.join(orders)}, each with a name of {', '.join(names)}")
                continue
            try:
                orders[verb](name)
            except HostsFailed as failure:
                print(failure)


if __name__ == "__main__":
    app()
