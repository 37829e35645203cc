"""What `make drift` reads of Docker's page."""

from tools import drift

PAGE = """
Text with https://elsewhere.example in it.

| Domains                    | Description      |
| -------------------------- | ---------------- |
| https://hub.docker.com     | Docker Hub       |
|https://new.docker.example| Docker Pull/Push |
"""


def test_the_hosts_of_the_table_are_read_and_no_others() -> None:
    assert drift.hosts_in(PAGE) == {"hub.docker.com", "new.docker.example"}


def test_the_hosts_that_were_looked_at_are_known() -> None:
    known = drift.known_docker_hosts()

    assert "registry-1.docker.io" in known
    assert drift.hosts_in(PAGE) - known == {"new.docker.example"}
