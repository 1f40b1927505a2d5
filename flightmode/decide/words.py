"""Every verb as a sentence for people: in `flightmode why`, in a replay, in the API."""

from typing import assert_never

from flightmode.model import action as verbs
from flightmode.model.action import Action


def in_words(action: Action) -> str:
    """What was to be done."""
    match action:
        case verbs.SwapState():
            return _of_swap(action)
        case verbs.Publish():
            return "publish what this node is"
        case verbs.FinishRequest():
            ended = "done" if action.ok else "refused"
            return f"end the {action.request.kind} request ({ended}): {action.why}"
        case verbs.ExtendFence():
            return f"let Postgres lead until {action.deadline_s:.1f} s of uptime"
        case verbs.LiftFence():
            return "let Postgres lead without a deadline: nobody else could"
        case verbs.FencePostgres():
            return f"stop Postgres at once: {action.why}"
        case _:
            return _of_postgres(action)


def _of_swap(action: verbs.SwapState) -> str:
    state = action.state
    if action.purpose == "renew":
        return f"renew term {state.term}"
    synced = f", commits wait for {', '.join(state.sync)}" if state.sync else ""
    return f"{action.purpose}: {state.leader} leads term {state.term}, mode {state.mode}{synced}"


_OfPostgres = (
    verbs.StartPostgres
    | verbs.StopPostgres
    | verbs.KillRemnants
    | verbs.Detach
    | verbs.Follow
    | verbs.Promote
    | verbs.SetSyncNames
    | verbs.Admit
    | verbs.Prepare
    | verbs.Checkpoint
    | verbs.ApplySettings
    | verbs.Initdb
    | verbs.Clone
    | verbs.Rewind
)


def _of_postgres(action: _OfPostgres) -> str:
    match action:
        case verbs.StartPostgres():
            whom = "" if action.following is None else f" of {action.following}"
            return f"start Postgres as a {action.role}{whom}"
        case verbs.StopPostgres():
            return "stop Postgres" if action.fast else "stop Postgres without waiting"
        case verbs.KillRemnants():
            return "end what a dead Postgres left running"
        case verbs.Detach():
            return "stop receiving from the old leader"
        case verbs.Follow():
            return f"follow {action.leader}"
        case verbs.Promote():
            return f"promote Postgres to the primary of term {action.term}"
        case verbs.SetSyncNames():
            names = ", ".join(action.names)
            return f"let commits wait for {names}" if names else "let commits wait for nobody"
        case verbs.Admit():
            return "let clients in"
        case _:
            return _of_data(action)


_OfData = (
    verbs.Prepare
    | verbs.Checkpoint
    | verbs.ApplySettings
    | verbs.Initdb
    | verbs.Clone
    | verbs.Rewind
)


def _of_data(action: _OfData) -> str:
    match action:
        case verbs.Prepare():
            return "make sure of our roles and slots"
        case verbs.Checkpoint():
            return "write a checkpoint"
        case verbs.ApplySettings():
            return "render the settings again and reload"
        case verbs.Initdb():
            return "make a new data directory"
        case verbs.Clone():
            return f"copy the data of {action.leader}"
        case verbs.Rewind():
            return f"take the data back to where they parted from {action.leader}"
        case never:
            assert_never(never)
