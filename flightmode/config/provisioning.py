"""[provision] of flightmode.toml: the machines, and how they are reached."""

from pydantic import Field

from flightmode.config.section import HOST, Location, Section, seconds


class App(Section):
    """A machine of your application: it gets a proxy of its own, on localhost."""

    host: str = Field(
        min_length=1,
        max_length=253,
        pattern=HOST,
        description="The address at which the nodes see it.",
    )


class Provision(Section):
    """How `flightmode provision` reaches the machines, and whom it lets in."""

    ssh_user: str = Field(
        default="root", min_length=1, description="Who logs in: root, or who may sudo."
    )
    ssh_port: int = Field(default=22, ge=1, le=65535, description="Where sshd listens.")
    ssh_key: Location | None = Field(
        default=None, description="A private key. Without it, what your ssh agent has."
    )
    fsync_max_ms: float = seconds(
        25.0,
        0.1,
        1000,
        "Milliseconds. A disk that takes longer to make 8 kB durable is refused: every commit "
        "waits for it, and etcd stumbles over it.",
    )
    tune_kernel: bool = Field(
        default=True,
        description="Let the kernel refuse memory that is not there (vm.overcommit_memory = 2, on "
        "database nodes) and write early (vm.dirty_bytes), so that no fsync waits long.",
    )
    watchdog: bool = Field(
        default=True,
        description="Where a database node has /dev/watchdog: reset the machine when nothing else "
        "could stop PostgreSQL. In use from the fence's next start.",
    )
    apps: dict[str, App] = Field(
        default={}, description="Machines of your application, by name: each gets a proxy."
    )
    clients: tuple[str, ...] = Field(
        default=(),
        description="Networks that may reach PostgreSQL without a proxy, like 10.0.0.0/8.",
    )
