"""What the other nodes say of themselves, and whether that is still of use."""

from flightmode.model.view import View


def fresh(view: View, name: str) -> bool:
    """Whether the member's record has changed within `member_fresh_s`, by our own clock."""
    seen = next((s for s in view.store.members if s.member.name == name), None)
    return seen is not None and view.now_s - seen.changed_s <= view.policy.member_fresh_s
