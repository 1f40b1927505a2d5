"""What a person is told of a server that is to be taken over."""

from pathlib import Path

from flightmode.postgres.adopt import _kept_inside, notes_on_rights


def test_an_archive_command_that_gains_rights_is_told_of() -> None:
    (note,) = notes_on_rights(["", "sudo -u backup /usr/bin/doas cp %p /srv/%f"])
    assert note.startswith("its archive_command uses doas, sudo, which fails")
    plain = ["pgbackrest --stanza=main archive-push %p", "cp %p /sudoku/%f"]
    assert list(notes_on_rights(plain)) == []


def test_it_is_looked_for_where_it_stays_in_the_directory(tmp_path: Path) -> None:
    assert list(_kept_inside(tmp_path)) == []
    (tmp_path / "postgresql.conf").write_text(
        "# archive_command = 'sudo a'\nrestore_command = 'sudo b'\narchive_mode = on\n"
    )
    assert list(notes_on_rights(_kept_inside(tmp_path))) == []
    (tmp_path / "postgresql.auto.conf").write_text("Archive_Command = 'sudo c %p'\n")
    assert list(_kept_inside(tmp_path)) == ["Archive_Command = 'sudo c %p'"]
