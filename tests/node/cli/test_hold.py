from node.db.session import Database
from seeded.rows import DELIVERED


def test_a_study_is_held_shown_kept_and_released(run, seeded: Database) -> None:
    said = run("hold", DELIVERED, "--why", "case 17")
    assert said.exit_code == 0
    assert "nothing of it is deleted" in said.stdout
    assert "legal hold: case 17" in run("studies", "--held").stdout
    assert "legal hold since" in run("study", DELIVERED).stdout
    kept = run("purge", "--study", DELIVERED, "--failed", "--conflicts", "--yes")
    assert "legal hold: case 17" in kept.stdout
    assert kept.exit_code == 1
    assert "study.held" in run("audit", "--action", "study").stdout
    assert run("release", DELIVERED, "--why", "closed").exit_code == 0
    assert run("studies", "--held").exit_code == 1


def test_a_reason_must_be_given(run, seeded: Database) -> None:
    assert run("hold", DELIVERED).exit_code == 2
    assert run("hold", DELIVERED, "--why", " ").exit_code == 2
    assert run("release", DELIVERED, "--why", "x").exit_code == 2
