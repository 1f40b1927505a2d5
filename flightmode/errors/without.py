"""Errors that people and programs outside of the nodes meet: files, commands, proxy, hosts."""

from flightmode.errors.base import FlightmodeError

# --------------------------------------------------------------------- FM4xx configuration


class ConfigError(FlightmodeError):
    """flightmode.toml, or a file it names, is not right."""

    code = "FM400"
    exit_status = 78
    hint = "flightmode check"


class ConfigMissing(ConfigError):
    """There is no flightmode.toml where it was looked for, or it can't be read."""

    code = "FM401"
    exit_status = 66
    hint = "flightmode init --help"


class ConfigInvalid(ConfigError):
    """flightmode.toml holds mistakes; the message lists all of them."""

    code = "FM402"
    hint = "flightmode check"

    def __init__(self, name: str, problems: tuple[str, ...], *, hint: str | None = None) -> None:
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__("\n  ".join((f"{name} has {count}:", *problems)), hint=hint)
        self.problems = problems


class FileUnsafe(ConfigError):
    """A key or a password can be read by others than its owner."""

    code = "FM410"
    exit_status = 77
    hint = "flightmode check"


class FileMissing(ConfigError):
    """A certificate, key or password that flightmode.toml points to is not there."""

    code = "FM411"
    exit_status = 66
    hint = "flightmode init --help"


class AlreadyThere(ConfigError):
    """`flightmode init` never overwrites what it finds."""

    code = "FM403"
    exit_status = 73
    hint = "flightmode init --help"


class CertificateInvalid(ConfigError):
    """A certificate has expired, does not fit its key, or is not signed by the cluster's CA."""

    code = "FM412"
    hint = "flightmode init --renew"


# --------------------------------------------------------------------- FM5xx interfaces


class InterfaceError(FlightmodeError):
    """A request of a person or a program that can't be served as asked."""

    code = "FM500"
    exit_status = 64
    hint = "flightmode --help"


class RehearsalFailed(InterfaceError):
    """The demo could not build its hosts, or could not damage them as it should."""

    code = "FM580"
    exit_status = 71
    hint = "./dev clean"


class NotAllowed(InterfaceError):
    """To change something, show the certificate of a node or of the operator, or the token."""

    code = "FM501"
    exit_status = 77
    hint = "flightmode check"


class RequestWrong(InterfaceError):
    """The request names no such node, or lacks something."""

    code = "FM502"
    hint = "flightmode status"


class RequestOpen(InterfaceError):
    """Another request of that kind is not finished yet."""

    code = "FM503"
    exit_status = 75
    retry = True
    hint = "flightmode status"


class RequestUnknown(InterfaceError):
    """No request of that id is open or was the last of its kind."""

    code = "FM504"
    exit_status = 69
    hint = "flightmode status"


class RequestRefused(InterfaceError):
    """The cluster could not do what was asked for; the message says why."""

    code = "FM505"
    exit_status = 1
    hint = "flightmode why"


class RequestUnfinished(InterfaceError):
    """It was asked for, and has not ended in the time that was waited; it may still be done."""

    code = "FM506"
    exit_status = 75
    retry = True
    hint = "flightmode status"


class AgentUnseen(InterfaceError):
    """The agent runs and has not looked at its node yet, or its loop stands still."""

    code = "FM510"
    exit_status = 69
    retry = True
    hint = "flightmode logs"


class PortTaken(InterfaceError):
    """The agent's API can't listen where flightmode.toml says."""

    code = "FM511"
    exit_status = 69
    hint = "ss -ltnp"


class NodeUnreachable(InterfaceError):
    """No node answered, or the one that was named did not."""

    code = "FM520"
    exit_status = 69
    retry = True
    hint = "flightmode check"


class WrongAnswer(InterfaceError):
    """Something answers where a node's API should, and it is not one."""

    code = "FM521"
    exit_status = 76
    hint = "flightmode check"


class NodeUnnamed(InterfaceError):
    """A command needs to know which node it is about."""

    code = "FM522"
    hint = "flightmode status"


class NotConfirmed(InterfaceError):
    """The question was not answered with the word that was asked for; nothing was done."""

    code = "FM523"
    exit_status = 1
    hint = "flightmode status"


class NotNeeded(InterfaceError):
    """The cluster is well enough to do it without loss; nothing was done."""

    code = "FM524"
    exit_status = 1
    hint = "flightmode switchover"


class ProgramMissing(InterfaceError):
    """A program that Flightmode starts is not installed."""

    code = "FM525"
    exit_status = 69
    hint = "flightmode check"


class CheckFailed(InterfaceError):
    """`flightmode check` found something that has to be put right first."""

    code = "FM526"
    exit_status = 78
    hint = "flightmode check --help"


class ReplayDiffers(InterfaceError):
    """Today's rules decide differently from those that wrote the journal."""

    code = "FM527"
    exit_status = 1
    hint = "flightmode replay --help"


class Unforeseen(InterfaceError):
    """Nobody thought of this: a mistake of ours. Please report it, with the trace that it shows."""

    code = "FM599"
    exit_status = 70
    hint = "flightmode check"


# --------------------------------------------------------------------- FM7xx proxy


class ProxyError(FlightmodeError):
    """The pool beside an application."""

    code = "FM700"
    exit_status = 70
    hint = "flightmode proxy check"


class ProxySettingsWrong(ProxyError):
    """A file that [proxy] names is not what the data path can use: users, certificate, key."""

    code = "FM701"
    exit_status = 78


class TakeOverFailed(ProxyError):
    """A new proxy could not take the place of the one that runs, which goes on as before."""

    code = "FM702"
    exit_status = 69
    retry = True
    hint = "flightmode proxy check"


# --------------------------------------------------------------------- FM8xx provisioning


class ProvisionError(FlightmodeError):
    """Bringing hosts to what flightmode.toml says."""

    code = "FM800"
    exit_status = 69
    hint = "flightmode provision --plan"


class HostUnreachable(ProvisionError):
    """A host does not answer, or the link to it broke; what was under way may be done or not."""

    code = "FM801"
    retry = True
    hint = "flightmode provision"


class HostRefused(ProvisionError):
    """A host answers, and does not let us in or do what was asked."""

    code = "FM802"
    exit_status = 77
    hint = "flightmode provision --plan"


class HostKeyChanged(ProvisionError):
    """A host shows another key than at first contact: another machine, or somebody in between."""

    code = "FM803"
    exit_status = 77
    hint = "flightmode provision --help"


class HostUnfit(ProvisionError):
    """A host is not what Flightmode runs on: release, space, disk, another program in the way."""

    code = "FM804"
    exit_status = 78
    hint = "flightmode provision --plan"


class StepFailed(ProvisionError):
    """A step on a host ended with an error; the ones before it are done, repeat to go on."""

    code = "FM805"
    exit_status = 75
    retry = True
    hint = "flightmode provision"


class BundleMissing(ProvisionError):
    """What `flightmode init` made is not beside flightmode.toml."""

    code = "FM806"
    exit_status = 66
    hint = "flightmode init --help"


class KeyUnusable(ProvisionError):
    """The private key of `provision.ssh_key` can't be read: garbled, missing, or locked."""

    code = "FM807"
    exit_status = 78
    hint = "flightmode provision --help"
